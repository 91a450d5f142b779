"""The rounds of one run: ask, collect, combine, evaluate, record."""

import time
from collections.abc import Sequence
from typing import Any

from flwr.app import ConfigRecord, MetricRecord

from client_app.trainer import learning_rate
from server_app.callbacks.base import Callback
from server_app.evaluation import CentralEvaluation
from server_app.grid import ClientGrid
from server_app.roster import FederationError
from server_app.state import RunState
from strategies.updates import to_numpy, to_record
from tasks.seeds import seed_everything

Metrics = dict[str, Any]


class RunLoop:
    """Plays the rounds of one run with any Flower strategy.

    Round r is seeded by (seed, "round", r), so a resumed run draws what an uninterrupted one would have drawn.
    """

    def __init__(
        self, state: RunState, grid: ClientGrid, evaluation: CentralEvaluation, callbacks: Sequence[Callback]
    ) -> None:
        self.state = state
        self.grid = grid
        self.evaluation = evaluation
        self.callbacks = callbacks

    def play(self) -> str:
        """Play all remaining rounds; return why the run ended.

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
            reason = self._play_round()
        for callback in self.callbacks:
            callback.on_run_end(state)
        skipped = f"; the last {state.skipped_in_a_row} were skipped: {state.report.skipped}"
        ending = reason or f"all {state.settings.num_server_rounds} rounds played"
        return ending + (skipped if state.skipped_in_a_row else "")

    def _play_round(self) -> str:
        state, settings = self.state, self.state.settings
        started = time.monotonic()
        seed_everything(settings.seed, "round", state.server_round)
        self.grid.begin_round(state.server_round, state.checkpoint_round)
        asked, trained = self._train()
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

    def _train(self) -> tuple[int, Metrics]:
        """Let the strategy train one round; return how many clients were asked and the aggregated metrics."""
        state = self.state
        left, needed = len(list(self.grid.get_node_ids())), state.settings.federation.min_replies
        if left < needed:
            raise FederationError(f"{left} clients are left, federation.min-replies = {needed} are needed")
        record = to_record(state.arrays)
        timeout = state.settings.federation.round_timeout
        messages = list(state.strategy.configure_train(state.server_round, record, ConfigRecord(), self.grid))
        replies = self.grid.send_and_receive(messages, timeout=timeout)
        arrays, metrics = state.strategy.aggregate_train(state.server_round, replies)
        state.report = state.strategy.report
        if arrays is not None:
            state.arrays = to_numpy(arrays)
        state.skipped_in_a_row = state.skipped_in_a_row + 1 if state.report.skipped else 0
        return len(messages), _scalars(metrics, "train_")

    def _evaluate_at_clients(self) -> Metrics:
        state = self.state
        if not state.settings.federation.fraction_evaluate:
            return {}
        seed_everything(state.settings.seed, "evaluate", state.server_round)
        record = to_record(state.arrays)
        messages = list(state.strategy.configure_evaluate(state.server_round, record, ConfigRecord(), self.grid))
        timeout = state.settings.federation.round_timeout
        state.directory.update_status(evaluated_round=state.server_round)  # from here on clients have this model
        replies = self.grid.send_and_receive(messages, timeout=timeout) if messages else []
        return _scalars(state.strategy.aggregate_evaluate(state.server_round, replies), "clients_")

    def _finish_round(self, line: Metrics, started: float) -> str:
        """Evaluate and hand the round's line to the callbacks; return the first reason to stop."""
        state = self.state
        if self.evaluation.due(state.server_round):
            line.update(self.evaluation.measure(state.arrays))
        line = {"round": state.server_round, **line, "seconds": round(time.monotonic() - started, 3)}
        reasons = [callback.on_round_end(state, line) for callback in self.callbacks]
        return next((reason for reason in reasons if reason), "")


def _scalars(metrics: MetricRecord | None, prefix: str) -> Metrics:
    """Return scalar metrics under names that cannot be mistaken for the server's own."""
    scalars = {key.replace("-", "_"): v for key, v in (metrics or {}).items() if isinstance(v, int | float)}
    return {prefix + key.removeprefix(prefix): value for key, value in scalars.items()}
