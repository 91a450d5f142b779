"""Replies of a round to usable updates: each reply is checked alone, and a bad one is set aside with its reason.

What is checked: a reply came, it carries the arrays that were sent out (same names, shapes and dtypes), every value
is finite and small enough to compute with, the example count is the one the client registered with, and the metrics
are those that most clients send.

Memory: replies are read one after the other. The strategy says what it keeps of a client's arrays, and the rest of the
reply is dropped before the next one is read.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from strategies.updates import MOST_EXAMPLES, Kept, ReplyError, RoundReport, Update, one_line, to_numpy
from tasks.wire import Arrays, WireError, read_npy

# A sum of squares of larger values may overflow their own precision; float64 is exact for integers up to 2**53.
LARGEST = {"float16": 1e5, "float32": 1e15, "float64": 1e100}
LARGEST_INTEGER = 2**53
LARGEST_METRIC = 1e100
LONGEST_NAME = 100


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

    def screen(
        self, replies: Iterable[Message], keep: Callable[[ArrayRecord], Kept]
    ) -> tuple[list[Update[Kept]], RoundReport]:
        """Return the usable updates in client order, and the report that names the others.

        ``keep`` is given each client's checked arrays, in the order of the model; the message loses its content.
        """
        report = RoundReport()
        updates: dict[int, Update[Kept]] = {}
        for reply in replies:
            client = reply.metadata.src_node_id
            if client in updates or client in report.quarantined:
                report.quarantined.setdefault(client, "replied twice in one round; the first reply counts")
                continue
            try:
                read = self._read(reply)
            except ReplyError as reason:
                report.quarantined[client] = one_line(str(reason))
            except Exception as error:  # the reply is the client's: whatever it breaks is its fault
                report.quarantined[client] = one_line(f"cannot be read: {type(error).__name__}: {error}")
            else:
                updates[client] = Update(client, keep(read.kept), read.examples, read.metrics, reply)
            if reply.has_content():
                reply.content = RecordDict()
        for client in self._asked:
            if client not in updates and client not in report.quarantined:
                report.quarantined[client] = "no reply in time"
        usable = _agree_on_metrics([updates[client] for client in sorted(updates)], report)
        report.examples = {update.client: update.examples for update in usable}
        report.metrics = {update.client: update.metrics for update in usable}
        return usable, report

    def screen_metrics(self, replies: Iterable[Message]) -> list[Update[None]]:
        """Return the usable replies to an evaluation, in client order; they carry metrics and no arrays."""
        found: dict[int, Update[None]] = {}
        for reply in replies:
            client = reply.metadata.src_node_id
            records = [*reply.content.metric_records.values()] if reply.has_content() else []
            if client in found or len(records) != 1:
                continue
            try:
                count = self._read_count(client, records[0])
            except ValueError:
                continue
            found[client] = Update(client, None, count, _read_metrics(records[0]), reply)
        return _agree_on_metrics([found[client] for client in sorted(found)], RoundReport())

    def _read(self, reply: Message) -> Update[ArrayRecord]:
        client = reply.metadata.src_node_id
        if client not in self._asked:
            raise ReplyError("was not asked in this round")
        if reply.has_error():
            raise ReplyError(f"error {reply.error.code}: {reply.error.reason}")
        arrays = [*reply.content.array_records.values()]
        metrics = [*reply.content.metric_records.values()]
        if len(arrays) != 1 or len(metrics) != 1:
            raise ReplyError(f"expected one set of arrays and one of metrics, got {len(arrays)} and {len(metrics)}")
        checked, count = self._check(arrays[0]), self._read_count(client, metrics[0])
        return Update(client, checked, count, _read_metrics(metrics[0]), reply)

    def _check(self, record: ArrayRecord) -> ArrayRecord:
        """Return the same bytes under their true labels, in the order of the model."""
        missing, extra = self._reference.keys() - record.keys(), record.keys() - self._reference.keys()
        if missing or extra:
            raise ReplyError(f"arrays missing: {_names(missing)}; not expected: {_names(extra)}")
        for name, expected in self._reference.items():
            try:
                got = read_npy(record[name].data)
            except WireError as error:
                raise ReplyError(f"array {name!r} cannot be read: {error}") from error
            if got.shape != expected.shape or got.dtype != expected.dtype:
                raise ReplyError(
                    f"array {name!r}: expected {expected.dtype} {expected.shape}, got {got.dtype} {got.shape}"
                )
            largest = LARGEST.get(got.dtype.name, LARGEST_INTEGER)
            if got.size and not max(abs(float(got.min())), abs(float(got.max()))) < largest:
                raise ReplyError(f"array {name!r} has values that are not finite, or not below {largest:g}")
        return ArrayRecord({name: _labelled(record[name].data, like) for name, like in self._reference.items()})

    def _read_count(self, client: int, record: MetricRecord) -> int:
        count = record.get("num-examples")
        if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= MOST_EXAMPLES:
            raise ReplyError(f"num-examples must be a positive whole number, got {count!r}")
        registered = None if self._examples is None else self._examples.get(client)
        if registered is not None and count != registered:
            raise ReplyError(f"num-examples is {count}, but the client registered with {registered}")
        return count


def _agree_on_metrics(updates: list[Update[Kept]], report: RoundReport) -> list[Update[Kept]]:
    """Keep the metrics that more than half of the updates carry; drop updates that lack one of them."""
    votes = Counter(key for update in updates for key in update.metrics)
    common = sorted(key for key, count in votes.items() if 2 * count > len(updates))
    usable = []
    for update in updates:
        lacking = [key for key in common if key not in update.metrics]
        if lacking:
            report.quarantined[update.client] = one_line(f"metrics missing or not finite: {_names(lacking)}")
        else:
            usable.append(replace(update, metrics={key: update.metrics[key] for key in common}))
    return usable


def _read_metrics(record: MetricRecord) -> dict[str, float]:
    """Return the numbers whose names can be printed, by name; names reach the records, logs and trackers."""
    named = {key: value for key, value in record.items() if len(key) <= LONGEST_NAME and key.isprintable()}
    scalars = {key: value for key, value in named.items() if isinstance(value, int | float) and key != "num-examples"}
    return {key: float(value) for key, value in scalars.items() if abs(value) < LARGEST_METRIC}


def _labelled(data: bytes, like: npt.NDArray[np.generic]) -> Array:
    """Return bytes that hold an array like this one; what the client says about them elsewhere does not count."""
    return Array(str(like.dtype), like.shape, "numpy.ndarray", data)


def _names(names: Iterable[str]) -> str:
    shown = sorted(names)
    return (", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")) or "none"
