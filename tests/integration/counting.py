"""Plug-ins of the integration tests: a method with state, and a task that is small enough for a deep network."""

import numpy as np
from torch import nn

from client_app.methods import ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.sgd import train
from tasks.base import ClientData, Examples
from tasks.images import Digits


class Counting(ClientMethod):
    """Trains at a rate that falls with the number of the client's own earlier rounds, so the state matters."""

    def init_state(self, data: ClientData) -> State:
        return {"rounds": np.zeros(1, np.int64)}

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        played = int(state["rounds"].item())
        slower = RoundConfig(
            round_config.server_round,
            round_config.learning_rate / (1 + played),
            round_config.stream,
            round_config.role,
            round_config.config,
        )
        result = train(model, context, slower, context.objective)
        return FitResult({**result.metrics, "rounds": float(played)}, {"rounds": state["rounds"] + 1})


class FewDigits(Digits):
    """160 digits."""

    def train_examples(self) -> Examples:
        return super().train_examples().take(np.arange(160))

    def test_examples(self) -> Examples:
        return super().test_examples().take(np.arange(40))
