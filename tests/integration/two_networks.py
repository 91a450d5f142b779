"""Plug-ins of the integration tests: methods with two networks and named arrays, as simple as they can be."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import nn

from client_app.methods import ClientMethod, FitResult, RoundConfig, State, TrainContext, train
from tasks.base import Task
from tasks.extra_arrays import ExtraArray


class TwoNetworks(ClientMethod):
    """Trains both networks plainly, and exchanges the client's class shares, and a number that is remembered."""

    networks: ClassVar[int] = 2

    def extra_arrays(self, task: Task, model: nn.Module) -> Sequence[ExtraArray]:
        return [ExtraArray("shares", (task.num_classes,)), ExtraArray("seen", (), "int64", start=3, remembered=True)]

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        (other,) = round_config.networks
        result = train(model, context, round_config, context.objective)
        train(other, context, round_config, context.objective)
        counts = np.bincount(context.local.labels.cpu().numpy(), minlength=context.num_classes)
        client = round_config.stream[1]
        arrays = {"shares": counts / counts.sum(), "seen": round_config.arrays["seen"] + 10 * client}
        return FitResult(result.metrics, arrays=arrays)


class Ensemble(TwoNetworks):
    """The same, evaluated with both networks."""

    ensemble: ClassVar[bool] = True


class Forgetful(TwoNetworks):
    """Does not return one of its arrays."""

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        result = super().fit(model, context, round_config, state)
        return FitResult(result.metrics, arrays={"shares": result.arrays["shares"]})
