"""One step of a method on a linear model: what it sends, and the same in NumPy with numerical gradients in float64."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from client_app.losses import build
from client_app.methods import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.trainer import Trainer, to_device
from tasks.base import ClientData, Task
from tasks.settings import TrainSettings
from tests.unit.client_app.methods.test_masked_optim import CPU, TASK, linear, softmax, vector

Array = npt.NDArray[np.float64]
RATE = 0.1
STREAM = (1, 0, 1)


def context_of(own: ClientData, loss: str = "ce", task: Task = TASK, **options: object) -> TrainContext:
    chosen = TrainSettings(**{"epochs": 2, "batch_size": 16, "clip_norm": 0.0, **options})  # type: ignore[arg-type]
    objective = build(loss, own.num_classes, class_counts=own.class_counts())
    return TrainContext(Trainer(task, chosen, CPU), objective, to_device(own, CPU), own.num_classes)


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
