"""Strategies that combine validated updates, their registry, and the adapter that makes one of any Flower strategy."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Generic, final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.parameters import as_sent
from strategies.validation import Kept, ReplyValidator, RoundReport, Update, to_numpy, to_record, too_few
from tasks.issues import Component
from tasks.plugins import Registry
from tasks.protocol import Arrays
from tasks.records import ArrayView, view_record, views

RUN_SETS = (
    "fraction_train",
    "fraction_evaluate",
    "min_train_nodes",
    "min_evaluate_nodes",
    "min_available_nodes",
    "min_replies",
    "seed",
    "weighting",
    "buffers",
    "examples",
    "aggregator",
    "spool",
    "timeout",
    "extra_arrays",
    "public_examples",
    "server_optimizer",
)
STRATEGIES = Registry("strategy", Strategy, run_sets=RUN_SETS)


class UpdateStrategy(Component, Strategy, Generic[Kept]):
    """A Flower strategy that combines validated updates, where Flower's own are given messages.

    The run loop validates the replies of a round and hands on the usable ones; see :func:`aggregate_replies`. In any
    other Flower app ``aggregate_train`` and ``aggregate_evaluate`` do the same, so a strategy overrides neither.

    Parameters
    ----------
    min_replies
        With fewer usable replies the round is skipped: the model stays as it is.
    examples
        Example count of each client, if known; see :class:`ReplyValidator`.
    """

    def __init__(self, min_replies: int = 1, examples: Mapping[int, int] | None = None) -> None:
        self.min_replies = min_replies
        self.report = RoundReport()
        self._examples = examples
        self._validator = ReplyValidator({}, (), examples)  # for Flower's own run loop

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a strategy whose own way to read messages would never be called."""
        super().__init_subclass__(**options)
        for flowers, ours in (("aggregate_train", "aggregate_updates"), ("aggregate_evaluate", "aggregate_metrics")):
            if flowers in vars(cls):
                raise TypeError(f"{cls.__name__} overrides {flowers}, which Winnow does not call: override {ours}")

    @abstractmethod
    def keep(self, update: Update[Arrays]) -> Kept:
        """Return what is kept of a checked reply; what still views its arrays keeps all of its bytes in memory.

        Raises
        ------
        ReplyError
            If this strategy cannot use it.
        """

    @abstractmethod
    def aggregate_updates(
        self, server_round: int, updates: list[Update[Kept]], report: RoundReport
    ) -> tuple[Arrays | None, MetricRecord | None]:
        """Return the new model, arrays as they were sent, and metrics; or no model and why in ``report.skipped``.

        ``updates`` are those of at least ``min_replies`` clients, in client order. What is known of each client goes
        into ``report``.
        """

    @abstractmethod
    def aggregate_metrics(self, server_round: int, updates: list[Update[None]]) -> MetricRecord | None:
        """Return the metrics of an evaluation over the usable replies, at least one, in client order."""

    def finish_round(self, report: RoundReport) -> None:
        """Learn from the report of a round of training, and complete it; a skipped round has one too."""

    @final
    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Validate the replies as the run loop does and combine the usable ones, for any other Flower app."""
        arrays, metrics, self.report = aggregate_replies(self, server_round, self._validator, replies)
        return None if arrays is None else to_record(arrays), metrics

    @final
    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Validate the replies as the run loop does and combine the usable ones, for any other Flower app."""
        updates = ReplyValidator({}, (), self._examples).screen_metrics(replies)
        return self.aggregate_metrics(server_round, updates) if updates else None

    def _remember(self, arrays: ArrayRecord, messages: Iterable[Message]) -> None:
        """Remember what was sent out, and to whom, for the case that no run loop of Winnow's does."""
        self._validator = ReplyValidator(views(arrays), messages, self._examples)


def aggregate_replies(
    strategy: UpdateStrategy[Kept], server_round: int, validator: ReplyValidator, replies: Iterable[Message]
) -> tuple[Arrays | None, MetricRecord | None, RoundReport]:
    """Validate the replies of a round, each once and as it comes, and let the strategy combine the usable ones.

    Returns the new model, or None if the round is skipped, the metrics, and what became of each client.
    """
    arrays, metrics = None, None
    updates, report = validator.screen(replies, strategy.keep)
    if len(updates) < strategy.min_replies:
        report.skipped = too_few(len(updates), strategy.min_replies)
    else:
        arrays, metrics = strategy.aggregate_updates(server_round, updates, report)
    strategy.finish_round(report)
    return arrays, metrics, report


class FlowerStrategyAdapter(UpdateStrategy[ArrayRecord]):
    """Any Flower strategy as one that combines validated updates: it only ever sees usable replies, in client order.

    Integer arrays are handed on as float64, because strategies scale in place what they get.

    Parameters
    ----------
    inner
        The strategy that samples and aggregates.
    min_replies, examples
        See :class:`UpdateStrategy`.
    """

    def __init__(self, inner: Strategy, min_replies: int = 1, examples: Mapping[int, int] | None = None) -> None:
        super().__init__(min_replies, examples)
        self.inner = inner

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose the clients, and remember what they are sent."""
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        self._remember(arrays, messages)
        return messages

    def keep(self, update: Update[Arrays]) -> ArrayRecord:
        """Return the arrays as a record of views."""
        record = view_record(update.kept)
        for name, values in update.kept.items():
            if values.dtype.kind in "iub":
                record[name] = ArrayView(values.astype(np.float64))
        return record

    def aggregate_updates(
        self, server_round: int, updates: list[Update[ArrayRecord]], report: RoundReport
    ) -> tuple[Arrays | None, MetricRecord | None]:
        """Hand the replies to the strategy; every array comes back in the dtype it had."""
        messages = [_message(update, {"arrays": update.kept}) for update in updates]
        updates.clear()  # the strategy may drop what it has used
        arrays, metrics = self.inner.aggregate_train(server_round, messages)
        if arrays is None:
            report.skipped = "the strategy returned no model"
            return None, metrics
        values = to_numpy(arrays)
        if not all(np.isfinite(value).all() for value in values.values()):
            report.skipped = "the strategy returned a model with values that are not finite"
            return None, None
        return as_sent(values, self._validator.sent), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose the clients."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_metrics(self, server_round: int, updates: list[Update[None]]) -> MetricRecord | None:
        """Hand the replies to the strategy."""
        return self.inner.aggregate_evaluate(server_round, [_message(update, {}) for update in updates])

    def summary(self) -> None:
        """Log the strategy's own summary."""
        self.inner.summary()


def _message(update: Update[Kept], arrays: dict[str, ArrayRecord]) -> Message:
    """Return the client's message with nothing in it but what was checked."""
    metrics = MetricRecord({"num-examples": update.examples, **update.metrics})
    update.message.content = RecordDict({**arrays, "metrics": metrics})
    return update.message
