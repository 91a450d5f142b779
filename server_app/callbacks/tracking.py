"""Sends the metrics of every round to an experiment tracker (extra ``tracking``)."""

from importlib.util import find_spec
from typing import Any

from server_app.callbacks.base import Callback
from server_app.state import RunState


class TensorBoard(Callback):
    """Writes TensorBoard event files into the run directory's ``tensorboard`` folder."""

    def on_run_start(self, state: RunState) -> None:
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(state.directory.path / "tensorboard"), purge_step=state.server_round + 1 if state.resumed else None
        )

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Write every number of the round."""
        for key, value in metrics.items():
            if key != "round" and isinstance(value, int | float):
                self._writer.add_scalar(key, value, state.server_round)
        self._writer.flush()
        return ""

    def on_run_end(self, state: RunState) -> None:
        """Close the event file."""
        self._writer.close()


def tracker_problem(name: str) -> str:
    """Return what is missing for a tracker, or an empty text."""
    if name == "tensorboard" and find_spec("tensorboard") is None:
        return "run.tracker = 'tensorboard': the package is not installed; pip install 'winnow[tracking]'"
    return ""
