"""Callbacks: what happens around rounds without being part of one."""

from typing import Any

from server_app.state import RunState


class Callback:
    """Override what you need; every hook does nothing by default."""

    def on_run_start(self, state: RunState) -> None:
        """Called once before the first round that is played."""

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Called after every round, round 0 (the initial model) included; a non-empty answer stops the run."""
        return ""

    def on_run_end(self, state: RunState) -> None:
        """Called once after the last round, not after an error."""
