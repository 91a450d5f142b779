"""One live line per round."""

from collections import deque
from statistics import median
from typing import Any

from server_app.callbacks.base import Callback
from server_app.state import RunState


class Progress(Callback):
    """Prints round, loss, accuracy, quarantined replies, time of the round and the estimated time left."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._recent: deque[float] = deque(maxlen=5)  # the first round is slow: processes start, modules load

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Print the line."""
        total = state.settings.num_server_rounds
        parts = [f"round {state.server_round:>{len(str(total))}}/{total}"]
        parts += [f"loss {metrics['loss']:.4f}"] if "loss" in metrics else []
        parts += [f"accuracy {100 * metrics['accuracy']:5.1f} %"] if "accuracy" in metrics else []
        if "clients_accuracy" in metrics:
            parts.append(f"at the clients {100 * metrics['clients_accuracy']:5.1f} %")
        if state.server_round:
            self._recent.append(metrics["seconds"])
            parts += [f"quarantined {metrics['quarantined']}", f"{metrics['seconds']:.1f} s", f"ETA {self._eta(state)}"]
            parts += [f"epsilon {metrics['epsilon']:.3g}"] if "epsilon" in metrics else []
        if state.report.skipped:
            parts.append(f"skipped: {state.report.skipped}")
        print("  ".join([f"[{self._label}]", *parts] if self._label else parts), flush=True)
        for client, reason in sorted(state.report.quarantined.items()):
            print(f"    client {client} set aside: {reason}", flush=True)
        return ""

    def _eta(self, state: RunState) -> str:
        left = median(self._recent) * (state.settings.num_server_rounds - state.server_round)
        return f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
