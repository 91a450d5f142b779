"""Which round's model is best, and early stopping when none gets better."""

import math
from typing import Any

from server_app.callbacks.base import Callback
from server_app.state import RunState


class BestModel(Callback):
    """Tracks the best value of the monitored measure; stops after ``patience`` evaluations without a better one.

    patience = 0 never stops.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        self._monitor = monitor
        self._patience = patience

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Compare this round with the best so far."""
        value = metrics.get(self._monitor)
        if value is None or math.isnan(value) or metrics.get("skipped"):  # not evaluated, diverged, or the same model
            return ""
        if state.best_value is None or self._better(value, state.best_value):
            state.best_value, state.best_round, state.evaluations_since_best = value, state.server_round, 0
            return ""
        state.evaluations_since_best += 1
        if 0 < self._patience <= state.evaluations_since_best:
            return (
                f"stopped early: {self._monitor} has not improved for {self._patience} evaluations "
                f"(best {state.best_value:.4f} in round {state.best_round})"
            )
        return ""

    def _better(self, value: float, best: float) -> bool:
        return value < best if self._monitor == "loss" else value > best
