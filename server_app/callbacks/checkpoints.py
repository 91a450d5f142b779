"""Checkpoint callbacks: which model is best, early stopping, and all that an exact resume needs."""

import math
from collections.abc import Iterable
from logging import WARNING
from typing import Any

from flwr.common.logger import log
from flwr.serverapp.strategy import Strategy

from server_app.callbacks.base import Callback
from server_app.state import RunState
from server_app.storage.checkpoints import LAST, PREVIOUS, Checkpoint, CheckpointFolder
from server_app.storage.strategy_state import restore_strategy, strategy_state, unsaved_attributes
from strategies.base import FlowerStrategyAdapter
from tasks.issues import Issue
from tasks.validation_split import NOWHERE, SITES, VALIDATION

PROGRESS = (
    "server_round",
    "skipped_in_a_row",
    "best_value",
    "best_loss",
    "best_round",
    "evaluations_since_best",
    "averaged_rounds",
)


class BestModel(Callback):
    """Tracks the best value of a measure on validation data; stops after ``patience`` evaluations without a better one.

    patience = 0 never stops. Where nothing is held out for validation, no model is called the best. Sites hold out few
    examples each, so that several rounds often are equally good: of those the one with the lowest loss is the best.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        self._monitor = monitor
        self._patience = patience

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Compare this round with the best so far."""
        value = metrics.get(f"{VALIDATION}{self._monitor}")
        if value is None or math.isnan(value) or metrics.get("skipped"):  # not evaluated, diverged, or the same model
            return ""
        loss = metrics.get(f"{VALIDATION}loss", math.inf)
        if state.best_value is None or self._better(value, state.best_value):
            state.best_value, state.best_loss, state.best_round = value, loss, state.server_round
            state.evaluations_since_best = 0
            return ""
        if state.validation == SITES and value == state.best_value and loss < state.best_loss:
            state.best_loss, state.best_round = loss, state.server_round
        state.evaluations_since_best += 1
        if 0 < self._patience <= state.evaluations_since_best:
            value_of_best = "" if state.settings.evaluate.report == "none" else f" {state.best_value:.4f}"
            return (
                f"stopped early: validation {self._monitor} has not improved for {self._patience} evaluations "
                f"(best{value_of_best} in round {state.best_round})"
            )
        return ""

    def _better(self, value: float, best: float) -> bool:
        return value < best if self._monitor == "loss" else value > best


class Checkpoints(Callback):
    """Saves the run every few rounds, and the model after each better one; see :class:`CheckpointFolder`."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._unsaved: set[str] = set()

    def on_run_start(self, state: RunState) -> None:
        """Remember what was warned about before the run."""
        self._unsaved.update(unsaved_attributes(state.inner_strategy))

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Save what is due."""
        if state.best_round == state.server_round:
            best = Checkpoint(state.arrays | state.extras, {}, {"server_round": state.server_round, "metrics": metrics})
            CheckpointFolder(state.directory.path).save_best(best)
        last_round = state.server_round == state.settings.num_server_rounds
        if state.server_round % self._every == 0 or last_round:
            self._save(state)
        return ""

    def on_run_end(self, state: RunState) -> None:
        """Save the final model, also when the run was stopped between two checkpoints."""
        if state.saved_round != state.server_round:
            self._save(state)

    def _save(self, state: RunState) -> None:
        """Save the run; from now on it may have to go back to the checkpoint before, and no further."""
        state.checkpoint_round, state.saved_round = state.saved_round, state.server_round
        arrays, shapes = strategy_state(state.inner_strategy)
        progress = {name: getattr(state, name) for name in PROGRESS}
        trained = state.newest if state.settings.strategy.ema else {}
        checkpoint = Checkpoint(state.arrays | state.extras, arrays, {**progress, "strategy": shapes}, trained)
        CheckpointFolder(state.directory.path).save(checkpoint)
        new = [name for name in unsaved_attributes(state.inner_strategy) if name not in self._unsaved]
        if new:
            log(WARNING, "%s", _unsaved_warning(state.settings.strategy.name, new))
        self._unsaved.update(new)


def unsaved_issues(name: str, strategy: Strategy) -> list[Issue]:
    """Return that a resumed run does not get back all that the strategy of this name may change, if so.

    Raises
    ------
    CheckpointError
        If the strategy's ``state_dict`` returns what a checkpoint cannot hold.
    """
    inner = strategy.inner if isinstance(strategy, FlowerStrategyAdapter) else strategy
    names = unsaved_attributes(inner)
    return [Issue("warning", "strategy.name", _unsaved_warning(name, names))] if names else []


def _unsaved_warning(strategy: str, names: Iterable[str]) -> str:
    return (
        f"strategy {strategy}: a resumed run does not get back {', '.join(names)}, because checkpoints hold plain "
        "values and arrays only; if they change between rounds, give the strategy state_dict and load_state_dict"
    )


def restore(state: RunState) -> None:
    """Bring a run to where its last sound checkpoint was written, and forget what came after.

    Raises
    ------
    CheckpointError
        If there is no sound checkpoint, it holds another model, or what is frozen is not what it was.
    """
    folder = CheckpointFolder(state.directory.path)
    checkpoint, problem = folder.newest()
    checkpoint.check_model(state.arrays | state.extras)
    checkpoint.check_frozen({name: state.arrays[name] for name in state.frozen})
    state.arrays = {name: checkpoint.model[name] for name in state.arrays}  # the order decides the last bit of sums
    state.extras = {name: checkpoint.model[name] for name in state.extras}
    state.trained = state.arrays | checkpoint.trained
    for name in PROGRESS:
        setattr(state, name, checkpoint.progress.get(name, 0))
    if state.validation == NOWHERE:  # of a run before there was validation data, it was chosen on test data
        state.best_value, state.best_round, state.evaluations_since_best = None, None, 0
    state.saved_round, state.resumed = state.server_round, True
    state.checkpoint_round = folder.earliest_round()
    restore_strategy(state.inner_strategy, checkpoint.strategy, checkpoint.progress["strategy"])
    _recount(state, problem)
    if problem:
        aside = folder.step_back()
        kept = f", and the damaged one is kept as {aside}" if aside else ""
        log(WARNING, "%s: the checkpoint of round %d before it is used%s.", problem, state.server_round, kept)
    state.directory.forget_after(state.server_round)


def _recount(state: RunState, problem: str) -> None:
    """Record where the run goes on; what has to be counted twice must survive another crash."""
    status = state.directory.status()
    sent = max(status.get("rounds_done", 0) if problem else 0, status.get("evaluated_round", 0))
    state.rounds_again = status.get("rounds_again", 0) + max(0, sent - state.server_round)
    state.directory.update_status(
        rounds_done=state.server_round,
        rounds_again=state.rounds_again,
        evaluated_round=state.server_round,
        resumed_after=state.server_round,
        resumed_from=PREVIOUS if problem else LAST,
        checkpoint_problem=problem,
    )
