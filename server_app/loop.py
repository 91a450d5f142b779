"""Run loop: the rounds of one run; ask, collect, combine, evaluate, record."""

import time
from collections.abc import Sequence
from typing import Any

from flwr.app import ConfigRecord, MetricRecord
from flwr.serverapp import Grid

from client_app.trainer import learning_rate
from server_app.callbacks.base import Callback
from server_app.evaluation import CentralEvaluation
from server_app.registration import FederationError
from server_app.state import RunState
from server_app.transport.client_grid import ClientGrid
from strategies.base import aggregate_replies
from strategies.site_metrics import combine_metrics
from strategies.validation import ReplyValidator, Update
from tasks.extra_arrays import model_part
from tasks.records import view_record
from tasks.seeds import seed_everything
from tasks.settings import AUTO
from tasks.validation_split import SITES, VALIDATION, evaluating_share

Metrics = dict[str, Any]


class RunLoop:
    """Does the rounds of one run with any strategy.

    Round r is seeded by (seed, "round", r), so a resumed run draws what an uninterrupted one would have drawn.
    """

    def __init__(
        self, state: RunState, grid: ClientGrid, evaluation: CentralEvaluation, callbacks: Sequence[Callback]
    ) -> None:
        self.state = state
        self.grid = grid
        self.evaluation = evaluation
        self.callbacks = callbacks

    def run(self) -> str:
        """Do all remaining rounds; return why the run ended.

        Raises
        ------
        FederationError
            If too many rounds in a row had too few usable replies, or all of them.
        """
        state = self.state
        for callback in self.callbacks:
            callback.on_run_start(state)
        if not state.resumed:
            self._finish_round({"selected": 0, "replies": 0, "quarantined": 0}, time.monotonic())
        reason = ""
        while not reason and state.server_round < state.settings.num_server_rounds:
            state.server_round += 1
            reason = self._run_round()
        for callback in self.callbacks:
            callback.on_run_end(state)
        skipped = f"; the last {state.skipped_in_a_row} were skipped: {state.report.skipped}"
        ending = reason or f"all {state.settings.num_server_rounds} rounds done"
        return ending + (skipped if state.skipped_in_a_row else "")

    def _run_round(self) -> str:
        state, settings = self.state, self.state.settings
        started = time.monotonic()
        seed_everything(settings.seed, "round", state.server_round)
        self.grid.begin_round(state.server_round, state.checkpoint_round)
        asked, trained = train_round(state, self.grid)
        rate = learning_rate(settings.train, state.server_round, settings.num_server_rounds)
        line: Metrics = {
            "selected": asked,
            "replies": len(state.report.examples),
            "quarantined": len(state.report.quarantined),
            "skipped": bool(state.report.skipped),
            "learning_rate": rate,
            **trained,
            **self._evaluate_at_clients(),
        }
        reason = self._finish_round(line, started)
        never_trained = state.skipped_in_a_row == settings.num_server_rounds
        if state.skipped_in_a_row > settings.federation.max_skipped_rounds or never_trained:
            raise FederationError(
                f"{state.skipped_in_a_row} rounds in a row were skipped, the last one with {state.report.skipped}; "
                f"reasons: {'; '.join(sorted(set(state.report.quarantined.values()))[:3]) or 'none given'}"
            )
        return reason

    def _evaluate_at_clients(self) -> Metrics:
        state = self.state
        state.measured = {}
        if not evaluating_share(state.settings):
            return {}
        seed_everything(state.settings.seed, "evaluate", state.server_round)
        record = view_record(state.sent)
        messages = list(state.strategy.configure_evaluate(state.server_round, record, ConfigRecord(), self.grid))
        timeout = state.settings.federation.round_timeout
        state.directory.update_status(evaluated_round=state.server_round)  # from here on clients have this model
        replies = self.grid.send_and_receive(messages, timeout=timeout) if messages else []
        updates = ReplyValidator(state.sent, messages, state.registration.examples()).screen_metrics(replies)
        spent = {"evaluation_epsilon": spent_on_evaluation(state)} if state.settings.evaluate.epsilon else {}
        if not updates:
            return spent
        state.measured = {update.client: update.metrics for update in updates}
        measured = self._of_all_sites(updates)
        if state.validation == SITES:  # the same names as at the server, by one of which the best model is chosen
            return spent | {f"{VALIDATION}{name}": value for name, value in _numbers(measured).items()}
        return spent | _scalars(measured, "clients_")

    def _of_all_sites(self, updates: list[Update[None]]) -> MetricRecord | None:
        """Return one value of each metric; liars must not choose the model where nobody but the sites can."""
        state, how = self.state, self.state.settings.evaluate.combine
        if how == AUTO and state.settings.run.monitor == SITES:
            how = "median"
        if how == AUTO:
            return state.strategy.aggregate_metrics(state.server_round, updates)
        return MetricRecord({**combine_metrics(updates, how)})  # type: ignore[arg-type]  # one of its choices

    def _finish_round(self, line: Metrics, started: float) -> str:
        """Evaluate and hand the round's line to the callbacks; return the first reason to stop."""
        state = self.state
        state.classes = None
        if self.evaluation.due(state.server_round):
            line.update(self.evaluation.measure(state.arrays, state.extras))
            state.classes = self.evaluation.classes
        line = {"round": state.server_round, **line, "seconds": round(time.monotonic() - started, 3)}
        reasons = [callback.on_round_end(state, line) for callback in self.callbacks]
        return next((reason for reason in reasons if reason), "")


def train_round(state: RunState, grid: Grid) -> tuple[int, Metrics]:
    """Let clients train the model of a run, and take what the strategy makes of the usable replies for the new one.

    Every reply is validated here and nowhere else, when it is reached. Returns how many clients were asked and the
    aggregated metrics.

    Raises
    ------
    FederationError
        If fewer clients are left than the run needs.
    """
    left, federation = len(list(grid.get_node_ids())), state.settings.federation
    if left < federation.min_replies:
        raise FederationError(f"{left} clients are left, federation.min-replies = {federation.min_replies} are needed")
    sent = state.sent_in_training
    record = view_record(sent)
    messages = list(state.strategy.configure_train(state.server_round, record, ConfigRecord(), grid))
    replies = grid.send_and_receive(messages, timeout=federation.round_timeout)
    validator = ReplyValidator(sent, messages, state.registration.examples())
    arrays, metrics, state.report = aggregate_replies(state.strategy, state.server_round, validator, replies)
    if arrays is not None:
        state.take(model_part(arrays))
        state.extras = {name: arrays[name] for name in state.extras}
    state.skipped_in_a_row = state.skipped_in_a_row + 1 if state.report.skipped else 0
    return len(messages), _scalars(metrics, "train_")


def spent_on_evaluation(state: RunState) -> float:
    """Return the privacy budget that each example has spent on accuracies: those of all rounds add up."""
    return state.settings.evaluate.epsilon * (state.server_round + state.rounds_again)


def _scalars(metrics: MetricRecord | None, prefix: str) -> Metrics:
    """Return scalar metrics under names that cannot be mistaken for the server's own."""
    scalars = {key.replace("-", "_"): value for key, value in _numbers(metrics).items()}
    return {prefix + key.removeprefix(prefix): value for key, value in scalars.items()}


def _numbers(metrics: MetricRecord | None) -> Metrics:
    return {key: value for key, value in (metrics or {}).items() if isinstance(value, int | float)}
