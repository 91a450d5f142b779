"""Plug-ins of the audit's tests: a method that believes every label to be the next one, and tasks with file names."""

import numpy as np
import numpy.typing as npt
from torch import nn

from client_app.methods import ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.sgd import train
from tasks.images import Digits


class NextLabel(ClientMethod):
    """Trains on the given labels and claims otherwise."""

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        result = train(model, context, round_config, context.objective)
        return FitResult(result.metrics, {"belief": np.eye(10, dtype=np.float32)[(context.local.labels + 1) % 10]})

    def corrected(self, state: State) -> npt.NDArray[np.float32] | None:
        return np.asarray(state["belief"], np.float32) if "belief" in state else None


class NamedDigits(Digits):
    """Digits whose names a spreadsheet would take for formulas."""

    def example_names(self, ids: npt.NDArray[np.int64]) -> list[str]:
        return [f"=scan {number}.png" for number in ids]


class Nameless(Digits):
    """Digits of which only the first has a name."""

    def example_names(self, ids: npt.NDArray[np.int64]) -> list[str]:
        return ["first"]
