"""A client method whose state shows whether it was kept. Copied among the examples, so that it travels as a plug-in."""

import os
import time
from pathlib import Path

import numpy as np
from torch import nn

from client_app.methods.base import FitResult, Kit, Plan, State
from client_app.methods.sgd import LocalSGD

TRAINING = Path("/tmp/training")  # in a container of its own: the number of the process, while it trains
SECONDS = 5.0  # so that a test meets it there


class Remembering(LocalSGD):
    """Plain training that keeps in its state in which rounds it was trained."""

    def fit(self, model: nn.Module, kit: Kit, plan: Plan, state: State) -> FitResult:
        """Train, take a while, and add this round to the state."""
        TRAINING.write_text(str(os.getpid()))
        result = super().fit(model, kit, plan, state)
        time.sleep(SECONDS)
        TRAINING.unlink()
        return FitResult(result.metrics, {"rounds": np.append(state.get("rounds", np.zeros(0)), plan.server_round)})
