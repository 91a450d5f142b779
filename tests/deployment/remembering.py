"""A client method whose state shows whether it was kept. Copied among the examples, so that it travels as a plug-in."""

import numpy as np
from torch import nn

from client_app.methods.base import FitResult, RoundConfig, State, TrainContext
from client_app.methods.sgd import LocalSGD


class Remembering(LocalSGD):
    """Plain training that keeps in its state in which rounds it was trained."""

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train, and add this round to the state."""
        result = super().fit(model, context, round_config, state)
        return FitResult(
            result.metrics, {"rounds": np.append(state.get("rounds", np.zeros(0)), round_config.server_round)}
        )
