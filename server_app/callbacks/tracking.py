"""Experiment trackers: callbacks that send the metrics of every round elsewhere (extra ``tracking``)."""

from importlib.util import find_spec
from typing import Any

from server_app.callbacks.base import CALLBACKS, Callback
from server_app.state import RunState


@CALLBACKS.register("tensorboard")
class TensorBoard(Callback):
    """Writes TensorBoard event files into the run directory's ``tensorboard`` folder.

    Raises
    ------
    ValueError
        If the package is not installed.
    """

    def __init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError('the package tensorboard is not installed; pip install -e ".[tracking]"')

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
