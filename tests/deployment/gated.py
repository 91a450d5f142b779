"""Client methods that show where they are, and that a test can hold there. Copied beside the app, as a plug-in.

In round r at client k a method writes the file ``client-k-round-r`` (the number of its process) into the folder
$WINNOW_TEST_GATE before it trains, and waits while the file ``hold-client-k-round-r`` lies there. Only a node's process
does: the server tries parts of a user's own too.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from client_app.methods.base import FitResult, RoundConfig, State, TrainContext
from client_app.methods.masked_optim import FedELC
from client_app.methods.sgd import LocalSGD


def wait_at_gate(round_config: RoundConfig) -> None:
    """Leave a mark, and wait as long as a test wants."""
    if Path(sys.argv[0]).name != "flwr-clientapp":
        return
    gate, place = Path(os.environ["WINNOW_TEST_GATE"]), "client-{1}-round-{2}".format(*round_config.stream)
    partial = gate / f".{place}"
    partial.write_text(str(os.getpid()))
    os.replace(partial, gate / place)
    while (gate / f"hold-{place}").exists():
        time.sleep(0.1)


class GatedSGD(LocalSGD):
    """Plain training behind the gate; says which round it was asked for."""

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Wait, then train."""
        wait_at_gate(round_config)
        result = super().fit(model, context, round_config, state)
        return replace(result, metrics={**result.metrics, "asked-in": float(round_config.server_round)})


class GatedELC(FedELC):
    """FedELC behind the gate, at clients that are all noisy; counts in its state how often it has been trained."""

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Wait, then train."""
        wait_at_gate(round_config)
        result, times = (
            super().fit(model, context, replace(round_config, role="noisy"), state),
            state.get("times", np.zeros(1)) + 1,
        )
        return FitResult({**result.metrics, "times": float(times[0])}, {**result.state, "times": times})
