"""One live line per round."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from server_app.callbacks.base import Callback

if TYPE_CHECKING:
    from server_app.loop import RunState


class Progress(Callback):
    """Prints round, loss, accuracy, quarantined replies, time of the round and the estimated time left."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = 0.0
        self._first_round = 0

    def on_run_start(self, state: RunState) -> None:
        """Start the clock."""
        self._started, self._first_round = time.monotonic(), state.server_round

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Print the line."""
        total = state.settings.num_server_rounds
        parts = [f"round {state.server_round:>{len(str(total))}}/{total}"]
        parts += [f"loss {metrics['loss']:.4f}"] if "loss" in metrics else []
        parts += [f"accuracy {100 * metrics['accuracy']:5.1f} %"] if "accuracy" in metrics else []
        if state.server_round:
            parts += [f"quarantined {metrics['quarantined']}", f"{metrics['seconds']:.1f} s", f"ETA {self._eta(state)}"]
        if state.report.skipped:
            parts.append(f"skipped: {state.report.skipped}")
        print("  ".join([f"[{self._label}]", *parts] if self._label else parts), flush=True)
        for client, reason in sorted(state.report.quarantined.items()):
            print(f"    client {client} set aside: {reason}", flush=True)
        return ""

    def _eta(self, state: RunState) -> str:
        played = state.server_round - self._first_round
        left = (time.monotonic() - self._started) / played * (state.settings.num_server_rounds - state.server_round)
        return f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
