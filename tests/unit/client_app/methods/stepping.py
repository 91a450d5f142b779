"""A small client for tests of methods: handwritten digits with wrong labels, small networks, a round, a single step.

``stepped`` is the step of a linear model again, in NumPy with numerical gradients in float64.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from client_app.losses import build
from client_app.methods import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.trainer import Trainer, to_device
from tasks.base import ClientData, Task
from tasks.images import Digits
from tasks.settings import TrainSettings

Array = npt.NDArray[np.float64]
CPU = torch.device("cpu")
TASK = Digits()
RATE = 0.1
STREAM = (1, 0, 1)


def data(count: int = 41, classes: int = 10, wrong: float = 0.5, keep_classes: int = 10) -> ClientData:
    """Return the first examples of some classes, of which the first ``wrong`` part has the next class's label."""
    examples = TASK.train_examples().take(np.arange(600))
    chosen = np.flatnonzero(examples.labels < keep_classes)[:count]
    labels = examples.labels[chosen].copy()
    labels[: round(wrong * len(labels))] = (labels[: round(wrong * len(labels))] + 1) % keep_classes
    return ClientData(0, examples.features[torch.from_numpy(chosen)], labels, chosen, classes)


def linear(seed: int = 0, classes: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def softmax(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shifted = np.exp(values - values.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def context_of(own: ClientData, loss: str = "ce", task: Task = TASK, **options: object) -> TrainContext:
    chosen = TrainSettings(**{"epochs": 2, "batch_size": 16, "clip_norm": 0.0, **options})  # type: ignore[arg-type]
    objective = build(loss, own.num_classes, class_counts=own.class_counts())
    return TrainContext(Trainer(task, chosen, CPU), objective, to_device(own, CPU), own.num_classes)


def plain_context(own: ClientData, loss: str = "ce", **options: object) -> TrainContext:
    """Return the context of a client whose steps are those of plain gradient descent."""
    return context_of(own, loss, **{"momentum": 0.0, **options})


def play(
    method: ClientMethod | str,
    model: nn.Module,
    own: ClientData,
    state: State | None = None,
    server_round: int = 1,
    **options: object,
) -> FitResult:
    """Train ``model`` in place for a round; without options two epochs in batches of 16."""
    built = METHODS.build(method) if isinstance(method, str) else method
    round_config = RoundConfig(server_round, RATE, STREAM)
    return built.fit(model, context_of(own, **options), round_config, state or {})  # type: ignore[arg-type]


def trained(method: ClientMethod | str, own: ClientData, **options: object) -> torch.Tensor:
    """Return the weights of a linear model after a round."""
    model = linear()
    play(method, model, own, **options)  # type: ignore[arg-type]
    return vector(model)


def one_step(
    method: ClientMethod, own: ClientData, state: State | None = None, server_round: int = 1
) -> tuple[Array, FitResult]:
    """Return the weights of the linear model after one step on all examples, and the result."""
    model = linear()
    result = play(method, model, own, state, server_round, epochs=1, batch_size=len(own), momentum=0.0)
    return vector(model).double().numpy(), result


def inputs_of(own: ClientData) -> Array:
    return np.asarray(own.features.double().flatten(1).numpy() / 16)


def start() -> Array:
    return vector(linear()).double().numpy()


def probabilities(parameters: Array, inputs: Array) -> Array:
    """Return what a linear model with these parameters (K 64 + K,) says, (n, K)."""
    weight, bias = parameters[: 10 * 64].reshape(10, 64), parameters[10 * 64 :]
    return np.asarray(softmax(inputs @ weight.T + bias))


def stepped(loss: Callable[[Array], float]) -> Array:
    """Return the starting weights after one step down the central differences of ``loss``."""
    begin, h = start(), 1e-5
    slopes = np.zeros_like(begin)
    for place in range(len(begin)):
        moved = begin.copy()
        moved[place] += h
        above = loss(moved)
        moved[place] -= 2 * h
        slopes[place] = (above - loss(moved)) / (2 * h)
    return begin - RATE * slopes
