"""Reply validation: the usable updates of a round, and a report that says why the other replies are set aside.

What is checked: a reply came, it carries the arrays that were sent out (same names, shapes and dtypes), every value
is finite and small enough to compute with, the example count is the one the client registered with, and the metrics
are those that most clients send.

Memory: replies are read one after the other. The strategy says what it keeps of a client's arrays, and the rest of the
reply is dropped before the next one is read.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from tasks.protocol import Arrays, SerializationError
from tasks.records import records_of, view_of

MOST_EXAMPLES = 10**9
# A sum of squares of larger values may overflow their own precision; float64 is exact for integers up to 2**53.
LARGEST = {"float16": 1e5, "float32": 1e15, "float64": 1e100}
LARGEST_INTEGER = 2**53
LARGEST_METRIC = 1e100
LONGEST_NAME = 100

Kept = TypeVar("Kept")


class ReplyError(ValueError):
    """A reply that cannot be used; the message is the reason shown to the operator."""


@dataclass(frozen=True)
class Update(Generic[Kept]):
    """A usable reply: what is kept of its arrays, its example count and scalar metrics, and the bare message."""

    client: int
    kept: Kept
    examples: int
    metrics: dict[str, float]
    message: Message


@dataclass
class RoundReport:
    """What became of every client of a round: its weight and distance to the result, or why it was set aside.

    ``remarks`` say in words what the strategy did in another way than usual.
    """

    examples: dict[int, int] = field(default_factory=dict)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    weights: dict[int, float] = field(default_factory=dict)
    distances: dict[int, float] = field(default_factory=dict)
    quarantined: dict[int, str] = field(default_factory=dict)
    roles: dict[int, str] = field(default_factory=dict)
    posteriors: dict[int, float] = field(default_factory=dict)
    noise_levels: dict[int, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    skipped: str = ""


def too_few(usable: int, needed: int) -> str:
    """Return why a round with too few usable replies is skipped."""
    return f"{usable} usable replies, at least {needed} are needed"


def one_line(text: str) -> str:
    """Return a client's text so that it is safe to print: one line, printable, about 300 characters at most."""
    return "".join(c if c.isprintable() else "?" for c in text[:300]) + ("..." if len(text) > 300 else "")


def to_numpy(record: ArrayRecord) -> Arrays:
    """Return named NumPy arrays, copies."""
    return {name: array.numpy() for name, array in record.items()}


def to_record(arrays: Arrays) -> ArrayRecord:
    """Return named Flower arrays, copies; :func:`tasks.records.view_record` makes none."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


class ReplyValidator:
    """Checks the replies of one round against what was sent.

    Parameters
    ----------
    sent
        The arrays that were sent out.
    messages
        The messages that carried them.
    examples
        Example count of each client, if known; a reply that states another one is set aside.
    """

    def __init__(
        self, sent: Arrays, messages: Iterable[Message] = (), examples: Mapping[int, int] | None = None
    ) -> None:
        self.sent = sent
        self._asked = sorted(message.metadata.dst_node_id for message in messages)
        self._examples = examples

    def screen(
        self, replies: Iterable[Message], keep: Callable[[Update[Arrays]], Kept]
    ) -> tuple[list[Update[Kept]], RoundReport]:
        """Return the usable updates in client order, and the report that names the others.

        ``keep`` is given each checked reply, its arrays in the order of the model as views of the bytes that came, and
        may raise ``ReplyError`` to set it aside; the message loses its content.
        """
        report = RoundReport()
        updates: dict[int, Update[Kept]] = {}
        for reply in replies:
            client = reply.metadata.src_node_id
            if client in updates or client in report.quarantined:
                report.quarantined.setdefault(client, "replied twice in one round; the first reply counts")
                continue
            try:
                updates[client] = self._kept(reply, keep)
            except ReplyError as reason:
                report.quarantined[client] = one_line(str(reason))
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
            records = [*records_of(reply.content, MetricRecord).values()] if reply.has_content() else []
            if client in found or len(records) != 1:
                continue
            try:
                count = self._read_count(client, records[0])
            except ValueError:
                continue
            found[client] = Update(client, None, count, _read_metrics(records[0]), reply)
        return _agree_on_metrics([found[client] for client in sorted(found)], RoundReport())

    def _kept(self, reply: Message, keep: Callable[[Update[Arrays]], Kept]) -> Update[Kept]:
        read = self._read(reply)
        return Update(read.client, keep(read), read.examples, read.metrics, reply)

    def _read(self, reply: Message) -> Update[Arrays]:
        try:
            return self._checked(reply)
        except ReplyError:
            raise
        except Exception as error:  # the reply is the client's: whatever it breaks is its fault
            raise ReplyError(f"cannot be read: {type(error).__name__}: {error}") from error

    def _checked(self, reply: Message) -> Update[Arrays]:
        client = reply.metadata.src_node_id
        if client not in self._asked:
            raise ReplyError("was not asked in this round")
        if reply.has_error():
            raise ReplyError(f"error {reply.error.code}: {reply.error.reason}")
        arrays = [*records_of(reply.content, ArrayRecord).values()]
        metrics = [*records_of(reply.content, MetricRecord).values()]
        if len(arrays) != 1 or len(metrics) != 1:
            raise ReplyError(f"expected one set of arrays and one of metrics, got {len(arrays)} and {len(metrics)}")
        checked, count = self._read_arrays(arrays[0]), self._read_count(client, metrics[0])
        return Update(client, checked, count, _read_metrics(metrics[0]), reply)

    def _read_arrays(self, record: ArrayRecord) -> Arrays:
        """Return the arrays as what their bytes say they are, in the order of the model."""
        missing, extra = self.sent.keys() - record.keys(), record.keys() - self.sent.keys()
        if missing or extra:
            raise ReplyError(f"arrays missing: {_names(missing)}; not expected: {_names(extra)}")
        arrays: Arrays = {}
        for name, expected in self.sent.items():
            try:
                got = view_of(record[name])
            except SerializationError as error:
                raise ReplyError(f"array {name!r} cannot be read: {error}") from error
            if got.shape != expected.shape or got.dtype != expected.dtype:
                raise ReplyError(
                    f"array {name!r}: expected {expected.dtype} {expected.shape}, got {got.dtype} {got.shape}"
                )
            largest = LARGEST.get(got.dtype.name, LARGEST_INTEGER)
            if got.size and not max(abs(float(got.min())), abs(float(got.max()))) < largest:
                raise ReplyError(f"array {name!r} has values that are not finite, or not below {largest:g}")
            arrays[name] = got
        return arrays

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


def _names(names: Iterable[str]) -> str:
    shown = sorted(names)
    return (", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")) or "none"
