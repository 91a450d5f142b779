"""A client method that sends 200 MB with a small model, at one client in one round. A plug-in beside gated.py."""

import torch
from gated import wait_at_gate  # type: ignore[import-not-found]
from torch import nn

from client_app.methods.base import FitResult, RoundConfig, State, TrainContext
from client_app.methods.sgd import LocalSGD

HOSTILE, ROUND, BYTES = 1, 1, 200_000_000


class Oversized(LocalSGD):
    """Plain training behind the gate; one reply also carries an array that nobody asked for."""

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train, and let the model grow."""
        wait_at_gate(round_config)
        result = super().fit(model, context, round_config, state)
        if round_config.stream[1:] == (HOSTILE, ROUND):
            noise = torch.randint(0, 256, (BYTES,), dtype=torch.uint8)  # no two pieces are equal
            model.register_buffer("more", noise)
        return result
