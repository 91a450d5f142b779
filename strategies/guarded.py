"""Any strategy behind the guard against bad replies."""

from collections.abc import Iterable, Mapping

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.guard import Guard
from strategies.parameters import as_sent
from strategies.updates import Kept, RoundReport, Update, to_numpy, to_record, too_few, views


class GuardedStrategy(Strategy):
    """Any Flower strategy behind the guard: it only ever sees usable replies, in client order.

    Integer arrays are handed on as float64, because strategies scale in place what they get.

    Parameters
    ----------
    inner
        The strategy that samples and aggregates.
    min_replies
        With fewer usable replies the round is skipped: the model stays as it is.
    examples
        Example count of each client, if known; see :class:`Guard`.
    """

    def __init__(self, inner: Strategy, min_replies: int = 1, examples: Mapping[int, int] | None = None) -> None:
        self.inner = inner
        self.min_replies = min_replies
        self.report = RoundReport()
        self._guard = Guard(examples)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose the clients, and remember what they are sent."""
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        self._guard.expect(arrays, messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand the usable replies to the strategy; every array comes back in the dtype it had."""
        updates, self.report = self._guard.screen(replies, keep=_scalable)
        if len(updates) < self.min_replies:
            self.report.skipped = too_few(len(updates), self.min_replies)
            return None, None
        messages = [_message(update, {"arrays": update.kept}) for update in updates]
        del updates  # the strategy may drop what it has used
        arrays, metrics = self.inner.aggregate_train(server_round, messages)
        if arrays is None:
            self.report.skipped = "the strategy returned no model"
            return None, metrics
        values = to_numpy(arrays)
        if not all(np.isfinite(value).all() for value in values.values()):
            self.report.skipped = "the strategy returned a model with values that are not finite"
            return None, None
        return to_record(as_sent(values, self._guard.reference)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose the clients."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Hand the usable replies to the strategy."""
        messages = [_message(update, {}) for update in self._guard.screen_metrics(replies)]
        return self.inner.aggregate_evaluate(server_round, messages) if messages else None

    def summary(self) -> None:
        """Log the strategy's own summary."""
        self.inner.summary()


def _scalable(record: ArrayRecord) -> ArrayRecord:
    integers = {name: values for name, values in views(record).items() if values.dtype.kind in "iub"}
    floats = to_record({name: values.astype(np.float64) for name, values in integers.items()})
    return ArrayRecord({name: floats.get(name, array) for name, array in record.items()})


def _message(update: Update[Kept], arrays: dict[str, ArrayRecord]) -> Message:
    """Return the client's message with nothing in it but what was checked."""
    metrics = MetricRecord({"num-examples": update.examples, **update.metrics})
    update.message.content = RecordDict({**arrays, "metrics": metrics})
    return update.message
