"""Saves the last and the best model, and everything that an exact resume needs."""

from typing import Any

from server_app.callbacks.base import Callback
from server_app.checkpoint import BEST, LAST, Checkpoint, restore_strategy, strategy_state
from server_app.state import RunState

PROGRESS = ("server_round", "skipped_in_a_row", "best_value", "best_round", "evaluations_since_best")


class Checkpoints(Callback):
    """Writes checkpoints/last.safetensors every few rounds and checkpoints/best.safetensors after a better one."""

    def __init__(self, every: int) -> None:
        self._every = every

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Save what is due."""
        folder = state.directory.path / "checkpoints"
        if state.best_round == state.server_round:
            Checkpoint(state.arrays, {}, {"server_round": state.server_round, "metrics": metrics}).write(folder / BEST)
        last_round = state.server_round == state.settings.num_server_rounds
        if state.server_round % self._every == 0 or last_round:
            _snapshot(state).write(folder / LAST)
            state.checkpoint_round = state.server_round
        return ""

    def on_run_end(self, state: RunState) -> None:
        """Save the final model, also when the run was stopped between two checkpoints."""
        _snapshot(state).write(state.directory.path / "checkpoints" / LAST)


def _snapshot(state: RunState) -> Checkpoint:
    arrays, shapes = strategy_state(state.inner_strategy)
    progress = {name: getattr(state, name) for name in PROGRESS}
    return Checkpoint(state.arrays, arrays, {**progress, "strategy": shapes})


def restore(state: RunState) -> None:
    """Bring a run to where its last checkpoint was written, and forget what came after.

    Raises
    ------
    CheckpointError
        If there is no readable checkpoint, or it holds another model.
    """
    checkpoint = Checkpoint.read(state.directory.path / "checkpoints" / LAST)
    checkpoint.check_model(state.arrays)
    state.arrays = {name: checkpoint.model[name] for name in state.arrays}  # the order decides the last bit of sums
    for name in PROGRESS:
        setattr(state, name, checkpoint.progress[name])
    state.checkpoint_round, state.resumed = state.server_round, True
    restore_strategy(state.inner_strategy, checkpoint.strategy, checkpoint.progress["strategy"])
    state.directory.forget_after(state.server_round)
