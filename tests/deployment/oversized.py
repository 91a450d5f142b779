"""A client method that sends 200 MB with a small model, at one client in one round. A plug-in beside gated.py."""

import torch
from gated import wait_at_gate  # type: ignore[import-not-found]
from torch import nn

from client_app.methods.base import FitResult, RoundConfig, State, TrainContext
from client_app.methods.sgd import LocalSGD

HOSTILE, ROUND, BYTES = 1, 1, 200_000_000


class Oversized(LocalSGD):
    """Plain training behind the gate; in one reply a weight is a million times larger than it was."""

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train, and let a weight grow."""
        wait_at_gate(round_config)
        result = super().fit(model, context, round_config, state)
        if round_config.stream[1:] == (HOSTILE, ROUND):
            next(model.parameters()).data = torch.rand(BYTES // 4)  # no two pieces are equal
        return result
