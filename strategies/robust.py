"""Strategies that survive bad replies: :class:`RobustStrategy` with an aggregation rule, and a guard for any other.

BatchNorm: running means and variances are buffers, not parameters. They do not enter the distances between updates:
a variance can be a thousand times larger than a weight. So the rule's weights say nothing about them, and a robust rule
comes with the coordinate-wise median of the buffers, the mean with their weighted mean. Integer buffers are rounded and
stay integers.

Example counts are what clients claim. Behind a robust rule no client's prior weight exceeds twice the median one, or
a claim of a billion examples would outvote everybody.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.aggregators import Aggregate, Rule, aggregate
from strategies.updates import Guard, RoundReport, Update, to_numpy, to_record, too_few
from tasks.seeds import rng
from tasks.wire import Arrays

Vector = npt.NDArray[np.floating]
MOST_WEIGHT = 2.0  # largest prior weight of a client behind a robust rule, in medians


class GuardedStrategy(Strategy):
    """Any Flower strategy behind the guard: it only ever sees usable replies, in client order.

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
        updates, self.report = self._guard.screen(replies)
        if len(updates) < self.min_replies:
            self.report.skipped = too_few(len(updates), self.min_replies)
            return None, None
        for update in updates:
            update.message.content = RecordDict(
                {
                    "arrays": to_record(update.arrays),
                    "metrics": MetricRecord({"num-examples": update.examples, **update.metrics}),
                }
            )
        arrays, metrics = self.inner.aggregate_train(server_round, [update.message for update in updates])
        if arrays is None:
            self.report.skipped = "the strategy returned no model"
            return None, metrics
        return to_record(_as_sent(to_numpy(arrays), self._guard.reference)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose the clients."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Hand the usable replies to the strategy."""
        updates = self._guard.screen_metrics(replies)
        for update in updates:
            metrics = MetricRecord({"num-examples": update.examples, **update.metrics})
            update.message.content = RecordDict({"metrics": metrics})
        return self.inner.aggregate_evaluate(server_round, [u.message for u in updates]) if updates else None

    def summary(self) -> None:
        """Log the strategy's own summary."""
        self.inner.summary()


class RobustStrategy(Strategy):
    """Samples clients, sets bad replies aside, and combines the rest with any aggregation rule.

    Parameters
    ----------
    aggregator
        The aggregation rule; it sees updates relative to the global model.
    seed
        Client sampling follows from it and the round alone.
    fraction_train, fraction_evaluate
        Shares of the clients that train and evaluate; at least one trains.
    min_replies
        With fewer usable replies the round is skipped: the model stays as it is.
    weighting
        Prior weight of an update: ``examples`` (its example count, limited behind a robust rule) or ``uniform``.
    buffers
        Names of the arrays that are not parameters (BatchNorm statistics).
    examples
        Example count of each client, if known; see :class:`Guard`.
    """

    def __init__(
        self,
        aggregator: Rule,
        seed: int = 0,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 0.0,
        min_replies: int = 1,
        weighting: str = "examples",
        buffers: Collection[str] = (),
        examples: Mapping[int, int] | None = None,
    ) -> None:
        self.aggregator = aggregator
        self.seed = seed
        self.fraction_train = fraction_train
        self.fraction_evaluate = fraction_evaluate
        self.min_replies = min_replies
        self.weighting = weighting
        self.buffers = frozenset(buffers)
        self.report = RoundReport()
        self._guard = Guard(examples)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the clients of this round."""
        clients = self._sample("sample", server_round, grid, self.fraction_train)
        messages = _messages(clients, arrays, config, MessageType.TRAIN)
        self._guard.expect(arrays, messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine the usable replies; returns (None, None) when there are too few of them."""
        updates, self.report = self._guard.screen(replies)
        if len(updates) < self.min_replies:
            self.report.skipped = too_few(len(updates), self.min_replies)
            return None, None
        combined = self._combine(updates)
        examples = np.array([update.examples for update in updates], np.float64)
        metrics: dict[str, Any] = {
            key: float(np.average([update.metrics[key] for update in updates], weights=examples))
            for key in updates[0].metrics
        }
        return to_record(combined), MetricRecord(metrics)

    def _combine(self, updates: list[Update]) -> Arrays:
        reference = self._guard.reference
        names = [name for name, array in reference.items() if name not in self.buffers and array.dtype.kind == "f"]
        base = _vector(reference, names)
        prior = self._prior(updates)
        result = aggregate(self.aggregator, [_vector(update.arrays, names) - base for update in updates], prior)
        self._note(updates, result)
        combined = _arrays(base + result.value, reference, names)
        weights = prior if result.weights is None else result.weights
        for name in reference.keys() - set(names):
            combined[name] = self._buffer([update.arrays[name] for update in updates], weights)
        return _as_sent(combined, reference)

    def _prior(self, updates: list[Update]) -> npt.NDArray[np.float64]:
        counts = np.array([update.examples for update in updates], np.float64)
        if self.weighting == "uniform":
            counts = np.ones_like(counts)
        elif self.aggregator.robust:
            counts = np.minimum(counts, MOST_WEIGHT * np.median(counts))
        shares: npt.NDArray[np.float64] = counts / counts.sum()
        return shares

    def _buffer(self, values: list[npt.NDArray[Any]], weights: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        stacked = np.stack(values).astype(np.float64)
        return np.median(stacked, axis=0) if self.aggregator.robust else np.tensordot(weights, stacked, axes=1)

    def _note(self, updates: list[Update], result: Aggregate) -> None:
        for i, update in enumerate(updates):
            self.report.distances[update.client] = float(result.distances[i])
            if result.weights is not None:
                self.report.weights[update.client] = float(result.weights[i])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the clients that evaluate, if any."""
        if not self.fraction_evaluate:
            return []
        clients = self._sample("sample-evaluate", server_round, grid, self.fraction_evaluate)
        return _messages(clients, arrays, config, MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the median of each finite metric over the clients: one liar cannot move it far."""
        updates = self._guard.screen_metrics(replies)
        if not updates:
            return None
        keys = updates[0].metrics
        return MetricRecord({key: float(np.median([update.metrics[key] for update in updates])) for key in keys})

    def summary(self) -> None:
        """Nothing to log: the run directory records every setting."""

    def _sample(self, stream: str, server_round: int, grid: Grid, fraction: float) -> list[int]:
        clients = sorted(grid.get_node_ids())
        size = max(1, round(fraction * len(clients)))
        return sorted(rng(self.seed, stream, server_round).choice(clients, size, replace=False).tolist())


def _messages(clients: list[int], arrays: ArrayRecord, config: ConfigRecord, kind: str) -> list[Message]:
    record = RecordDict({"arrays": arrays, "config": config})
    return [Message(record, dst_node_id=client, message_type=kind) for client in clients]


def _vector(arrays: Arrays, names: list[str]) -> Vector:
    """Return the named arrays as one vector; float64 models stay float64, the rest is float32."""
    parts = [arrays[name].reshape(-1) for name in names]
    double = any(part.dtype == np.float64 for part in parts)
    return np.concatenate(parts).astype(np.float64 if double else np.float32, copy=False)


def _arrays(vector: Vector, reference: Arrays, names: list[str]) -> Arrays:
    ends = np.cumsum([reference[name].size for name in names])
    parts = np.split(vector, ends[:-1])
    return {name: part.reshape(reference[name].shape) for name, part in zip(names, parts, strict=True)}


def _as_sent(arrays: Arrays, reference: Arrays) -> Arrays:
    """Return the arrays in the order, and each in the dtype, in which they were sent out."""
    restored: Arrays = {}
    for name, sent in reference.items():
        value = arrays[name]
        integer = sent.dtype.kind in "iub" and value.dtype.kind == "f"
        restored[name] = (np.rint(value) if integer else value).astype(sent.dtype)
    return restored
