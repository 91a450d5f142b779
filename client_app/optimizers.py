"""Optimizers of local training: torch's formulas in few multi-tensor calls, with clipping and the same bits.

A step of a small network is bound by what Python and the dispatcher do, and torch's own classes spend most of theirs on
grouping tensors, hooks and profiler marks. What is here gives the same numbers as ``nn.utils.clip_grad_norm_`` and
``torch.optim`` without ``fused``.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tasks.settings import TrainSettings

MARKED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def uncompiled(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """Return an optimizer of torch with the same methods, less the marks for the compiler around them.

    The first call of a marked method imports ``torch._dynamo``: two CPU seconds and 900 modules in every client
    process, more than many clients train in a round. The steps are the same to the last bit; a step that is compiled
    as a whole takes torch's own class.
    """
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in MARKED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))  # torch's mark turns the gradient off too
    made: type[Optimizer] = type(kind.__name__, (kind,), methods)
    return made


ADAM = uncompiled(torch.optim.Adam)
ADAPTIVE = {"adam": ADAM, "adamw": uncompiled(torch.optim.AdamW)}
"""Optimizers of torch, by the setting ``train.optimizer``."""


class LocalOptimizer(ABC):
    """Moves parameters in one round; its state never outlives the round."""

    def __init__(self, parameters: Iterable[Tensor], rate: float) -> None:
        self.rate = rate  # of the steps to come
        self.parameters = list(parameters)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def clip(self, norm: float) -> None:
        """Scale all gradients so that their common 2-norm is at most ``norm`` (Pascanu et al., ICML 2013)."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not gradients:
            return
        total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2.0)), 2.0)
        factor = (norm / (total + 1e-6)).clamp(max=1.0)
        # A GPU would have to be waited for, to save a multiplication by 1.
        if factor.device.type != "cpu" or factor.item() != 1.0:
            torch._foreach_mul_(gradients, factor)

    @abstractmethod
    def step(self) -> None:
        """Move the parameters that have a gradient."""


class SGD(LocalOptimizer):
    """SGD with momentum and weight decay, as ``torch.optim.SGD``: v = momentum v + g + decay w; w = w - rate v."""

    def __init__(self, parameters: Iterable[Tensor], rate: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, rate)
        self._momentum, self._decay = momentum, weight_decay
        self._velocities: dict[int, Tensor] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        pairs = [(i, p.grad) for i, p in enumerate(self.parameters) if p.grad is not None]
        if not pairs:
            return
        moved, directions = [self.parameters[i] for i, _ in pairs], [gradient for _, gradient in pairs]
        if self._decay:
            directions = list(torch._foreach_add(directions, moved, alpha=self._decay))
        if self._momentum:
            directions = self._with_momentum([i for i, _ in pairs], directions)
        torch._foreach_add_(moved, directions, alpha=-self.rate)

    def _with_momentum(self, places: list[int], directions: list[Tensor]) -> list[Tensor]:
        known = [(self._velocities[i], d) for i, d in zip(places, directions, strict=True) if i in self._velocities]
        if known:
            velocities, added = map(list, zip(*known, strict=True))
            torch._foreach_mul_(velocities, self._momentum)
            torch._foreach_add_(velocities, added)
        for i, direction in zip(places, directions, strict=True):
            if i not in self._velocities:
                self._velocities[i] = direction.clone()
        return [self._velocities[i] for i in places]


class TorchOptimizer(LocalOptimizer):
    """An optimizer of torch, in its multi-tensor form."""

    def __init__(
        self, parameters: Iterable[Tensor], kind: Callable[..., Optimizer], rate: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, rate)
        on_cpu = self.parameters[0].device.type == "cpu"
        self._inner = kind(self.parameters, rate, weight_decay=weight_decay, foreach=True if on_cpu else None)

    def step(self) -> None:
        """Move the parameters that have a gradient."""
        for group in self._inner.param_groups:
            group["lr"] = self.rate
        self._inner.step()


def make_optimizer(model: nn.Module, options: TrainSettings, rate: float) -> LocalOptimizer:
    """Return a fresh optimizer for the trained parameters of ``model``, on its device."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if options.optimizer == "sgd":
        return SGD(trained, rate, options.momentum, options.weight_decay)
    return TorchOptimizer(trained, ADAPTIVE[options.optimizer], rate, options.weight_decay)
