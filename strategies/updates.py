"""Replies of a round to usable updates: each reply is checked alone, and a bad one is set aside with its reason.

What is checked: a reply came, it carries the arrays that were sent out (same names, shapes and dtypes), every value
is finite, the example count is the one the client registered with, and the metrics are those that most clients send.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord

from tasks.wire import Arrays

LARGEST = 1e100  # squares of larger values overflow float64
MOST_EXAMPLES = 10**9


class ReplyError(ValueError):
    """A reply that cannot be used; the message is the reason shown to the operator."""


@dataclass(frozen=True)
class Update:
    """A usable reply: the client's arrays, its example count and its scalar metrics."""

    client: int
    arrays: Arrays
    examples: int
    metrics: dict[str, float]
    message: Message


@dataclass
class RoundReport:
    """What became of every client of a round: its weight and distance to the result, or why it was set aside."""

    examples: dict[int, int] = field(default_factory=dict)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    weights: dict[int, float] = field(default_factory=dict)
    distances: dict[int, float] = field(default_factory=dict)
    quarantined: dict[int, str] = field(default_factory=dict)
    skipped: str = ""


class Guard:
    """Checks the replies of one round against what was sent out.

    Parameters
    ----------
    examples
        Example count of each client, if known; a reply that states another one is set aside.
    """

    def __init__(self, examples: Mapping[int, int] | None = None) -> None:
        self._examples = examples
        self._reference: Arrays = {}
        self._asked: list[int] = []

    @property
    def reference(self) -> Arrays:
        """The arrays sent out in this round."""
        return self._reference

    def expect(self, arrays: ArrayRecord, messages: Iterable[Message]) -> None:
        """Remember what was sent out, and to whom."""
        self._reference = to_numpy(arrays)
        self._asked = sorted(message.metadata.dst_node_id for message in messages)

    def screen(self, replies: Iterable[Message]) -> tuple[list[Update], RoundReport]:
        """Return the usable updates in client order, and the report that names the others."""
        report = RoundReport()
        updates: dict[int, Update] = {}
        for reply in replies:
            client = reply.metadata.src_node_id
            try:
                if client in updates:
                    raise ReplyError("replied twice in one round; the first reply counts")
                updates[client] = self._read(reply)
            except ReplyError as reason:
                report.quarantined[client] = one_line(str(reason))
        for client in self._asked:
            if client not in updates and client not in report.quarantined:
                report.quarantined[client] = "no reply in time"
        usable = self._agree_on_metrics([updates[client] for client in sorted(updates)], report)
        report.examples = {update.client: update.examples for update in usable}
        report.metrics = {update.client: update.metrics for update in usable}
        return usable, report

    def screen_metrics(self, replies: Iterable[Message]) -> list[Update]:
        """Return the usable replies to an evaluation, in client order; they carry metrics and no arrays."""
        found: dict[int, Update] = {}
        for reply in replies:
            client = reply.metadata.src_node_id
            records = [*reply.content.metric_records.values()] if reply.has_content() else []
            if client in found or len(records) != 1:
                continue
            try:
                count = self._read_count(client, records[0])
            except ReplyError:
                continue
            found[client] = Update(client, {}, count, _read_metrics(records[0]), reply)
        return self._agree_on_metrics([found[client] for client in sorted(found)], RoundReport())

    def _read(self, reply: Message) -> Update:
        client = reply.metadata.src_node_id
        if client not in self._asked:
            raise ReplyError("was not asked in this round")
        if reply.has_error():
            raise ReplyError(f"error {reply.error.code}: {reply.error.reason}")
        arrays = [*reply.content.array_records.values()]
        metrics = [*reply.content.metric_records.values()]
        if len(arrays) != 1 or len(metrics) != 1:
            raise ReplyError(f"expected one set of arrays and one of metrics, got {len(arrays)} and {len(metrics)}")
        values = self._read_arrays(arrays[0])
        return Update(client, values, self._read_count(client, metrics[0]), _read_metrics(metrics[0]), reply)

    def _read_arrays(self, record: ArrayRecord) -> Arrays:
        missing, extra = self._reference.keys() - record.keys(), record.keys() - self._reference.keys()
        if missing or extra:
            raise ReplyError(f"arrays missing: {_names(missing)}; not expected: {_names(extra)}")
        try:
            values = to_numpy(record)
        except Exception as error:  # the bytes are the client's: whatever they break is its fault
            raise ReplyError(f"arrays cannot be read: {error}") from error
        for name, expected in self._reference.items():
            got = values[name]
            if got.shape != expected.shape or got.dtype != expected.dtype:
                raise ReplyError(
                    f"array {name!r}: expected {expected.dtype} {expected.shape}, got {got.dtype} {got.shape}"
                )
            if got.size and not max(abs(float(got.min())), abs(float(got.max()))) < LARGEST:
                raise ReplyError(f"array {name!r} has values that are not finite")
        return {name: values[name] for name in self._reference}

    def _read_count(self, client: int, record: MetricRecord) -> int:
        count = record.get("num-examples")
        if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= MOST_EXAMPLES:
            raise ReplyError(f"num-examples must be a positive whole number, got {count!r}")
        registered = None if self._examples is None else self._examples.get(client)
        if registered is not None and count != registered:
            raise ReplyError(f"num-examples is {count}, but the client registered with {registered}")
        return count

    def _agree_on_metrics(self, updates: list[Update], report: RoundReport) -> list[Update]:
        """Keep the metrics that more than half of the updates carry; drop updates that lack one of them."""
        votes = Counter(key for update in updates for key in update.metrics)
        common = [key for key, count in votes.items() if 2 * count > len(updates)]
        usable = []
        for update in updates:
            lacking = [key for key in common if key not in update.metrics]
            if lacking:
                report.quarantined[update.client] = one_line(f"metrics missing or not finite: {_names(lacking)}")
                continue
            metrics = {key: update.metrics[key] for key in sorted(common)}
            usable.append(Update(update.client, update.arrays, update.examples, metrics, update.message))
        return usable


def too_few(usable: int, needed: int) -> str:
    """Return why a round with too few usable replies is skipped."""
    return f"{usable} usable replies, at least {needed} are needed"


def one_line(text: str) -> str:
    """Return a client's text so that it is safe to print: one line, printable, about 300 characters at most."""
    return "".join(c if c.isprintable() else "?" for c in text[:300]) + ("..." if len(text) > 300 else "")


def to_numpy(record: ArrayRecord) -> Arrays:
    """Return named NumPy arrays."""
    return {name: array.numpy() for name, array in record.items()}


def to_record(arrays: Arrays) -> ArrayRecord:
    """Return named Flower arrays."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def _read_metrics(record: MetricRecord) -> dict[str, float]:
    scalars = {key: value for key, value in record.items() if isinstance(value, int | float)}
    return {key: float(value) for key, value in scalars.items() if key != "num-examples" and np.isfinite(value)}


def _names(names: Iterable[str]) -> str:
    shown = sorted(names)
    return (", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")) or "none"
