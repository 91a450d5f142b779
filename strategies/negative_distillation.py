"""Negative distillation (Lu et al., AAAI 2024): a model learns from what models with wrong labels find least likely.

Also how such models are found, by Monte Carlo dropout (Gal and Ghahramani, ICML 2016): a model that learned random
labels is unsure about examples that it has not seen. Both look at examples without labels; formulas of
:mod:`strategies.fedned`.

Shapes: B examples, K classes, F features.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def uncertainty(
    model: "nn.Module", inputs: "Tensor", passes: int, dropout: float, generator: "torch.Generator"
) -> float:
    """Return how unsure a model is about ``inputs`` (B, ...): the mean entropy of its mean prediction, in nats.

    The mean is over ``passes`` predictions, in each of which another share ``dropout`` of the features that its last
    layer is given is set to 0, and the others are divided by 1 - ``dropout``. ``generator`` is one of the CPU.

    Raises
    ------
    FeatureError
        If the model's last layer is not known.
    """
    import torch

    from tasks.features import last_layer

    with torch.no_grad(), dropped(last_layer(model, inputs), dropout, generator):
        mean = torch.stack([torch.softmax(model(inputs).float(), 1) for _ in range(passes)]).mean(0)
    return float(torch.special.entr(mean).sum(1).double().mean())


@contextmanager
def dropped(layer: "nn.Module", share: float, generator: "torch.Generator") -> Iterator[None]:
    """Set a random ``share`` of what a layer is given to 0 within the block, and scale the rest up."""
    import torch

    def drop(given: "Tensor") -> "Tensor":
        kept = torch.rand(given.shape, generator=generator) >= share
        return given * kept.to(given) / (1 - share)

    def before(_: "nn.Module", args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (drop(args[0]), *args[1:]), named
        first = next(iter(named))
        return args, {**named, first: drop(named[first])}

    handle = layer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def negative_loss(logits: "Tensor", teachers: "Tensor", temperature: float) -> "Tensor":
    """Return the mean of KL(softmax(-t / T) || softmax(z / T)) over teachers and examples, a scalar, at least 0.

    Parameters
    ----------
    logits
        z of the model that learns, (B, K).
    teachers
        t of J bad teachers, (J, B, K).
    temperature
        T; above 1 both are softened.
    """
    import torch

    wanted = torch.log_softmax(-teachers / temperature, 2)
    found = torch.log_softmax(logits / temperature, 1)
    return (wanted.exp() * (wanted - found)).sum(2).mean()


def distil(
    model: "nn.Module",
    teachers: Sequence["Tensor"],
    inputs: Callable[["Tensor"], "Tensor"],
    *,
    steps: int,
    rate: float,
    batch_size: int,
    temperature: float,
    draws: np.random.Generator,
) -> None:
    """Take ``steps`` steps of Adam on :func:`negative_loss`, in place, each on a batch drawn without replacement.

    Parameters
    ----------
    teachers
        Logits of each bad teacher for all n examples, (n, K).
    inputs
        ``(places (B,)) -> model inputs``.
    rate
        Learning rate.
    """
    import torch

    stacked = torch.stack([*teachers])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    count = stacked.shape[1]
    for _ in range(steps):
        places = torch.from_numpy(draws.choice(count, min(batch_size, count), replace=False))
        optimizer.zero_grad()
        logits = model(inputs(places)).float()
        negative_loss(logits, stacked[:, places].to(logits), temperature).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
