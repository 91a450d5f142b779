"""Client grid: the federation as strategies see it.

Flower draws node ids at random for every run and moves every array as an object of its own. Seen through
:class:`ClientGrid` the nodes are the clients 0, 1, 2, ... in stable order, and a model is sent as one flat array
while strategies still see named arrays. Replies are matched by message, so an error that the SuperLink reports for a
lost node is charged to the right client, and a late reply to an earlier round is never taken for a new one.

Half precision, if chosen, is undone here: strategies see full precision in what is sent and in what comes back.

Memory: the arrays of a reply are views of the bytes that came; as the replies are read, one after the other, their
bytes are dropped. None is larger than the arrays that were sent and a fixed allowance, so all of a round are not larger
than that for each client asked.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from logging import WARNING

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from server_app.transport.ray_recovery import Survivors
from server_app.transport.replies import ALLOWANCE, ReplyCollector, reply_limit
from tasks import protocol
from tasks.protocol import ARRAYS, RECORD, MessageHeader, Mode
from tasks.records import records_of, view_of, views
from tasks.wire import FULL, named_record, pack_half, wires_of

PUSHED_TOGETHER = 100  # the SuperLink takes about 15 ms for each, and has to answer a request within 30 s
MALFORMED = 100  # our own error code, outside the range that Flower uses
UNAVAILABLE = 3  # Flower's code for a message that the SuperLink does not have, or no longer


def rebound(reply: Message, asked: Message) -> Message:
    """Return a reply as the answer to ``asked``, so that it is its addressee's, whoever is named as the sender."""
    return Message(reply.error if reply.has_error() else reply.content, reply_to=asked)


class NodeGrid:
    """Sends messages to nodes and collects their replies, each matched to the message that it answers.

    A reply may be as large as :func:`reply_limit` says and come until a deadline; one that breaks this, or cannot be
    read, becomes an error of its sender.

    Parameters
    ----------
    inner
        Flower's grid.
    mode
        Whether the nodes are simulated.
    read
        Makes a reply, and the message that it answers, into the reply that is returned.
    """

    def __init__(self, inner: Grid, mode: Mode, read: Callable[[Message, Message], Message] = rebound) -> None:
        self._inner, self._mode, self._read = inner, mode, read
        self._collector = ReplyCollector(inner, mode)
        self._pause = getattr(inner, "wait", time.sleep)  # our engine's grid knows when a reply has come
        self._open: dict[str, Message] = {}
        self._limits: dict[str, int] = {}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for the replies; those that do not come in time are left out."""
        deadline = deadline_after(timeout)
        sent = list(messages)
        self.send(sent, sent)
        return self.collect(deadline)

    def send(self, outgoing: Sequence[Message], asked: Sequence[Message]) -> list[str]:
        """Send messages and return their ids; earlier ones are no longer waited for.

        ``asked`` are the same messages as the caller knows them: replies answer those.
        """
        for first in range(0, len(outgoing), PUSHED_TOGETHER):
            self._inner.push_messages(outgoing[first : first + PUSHED_TOGETHER])
        self._open = {sent.metadata.message_id: own for sent, own in zip(outgoing, asked, strict=True)}
        self._limits = {name: reply_limit(message) for name, message in self._open.items()}
        return list(self._open)

    @property
    def expected_bytes(self) -> int:
        """The most bytes that the arrays of all replies may have that are waited for."""
        return sum(self._limits[name] - ALLOWANCE for name in self._open)

    def collect(self, deadline: float) -> list[Message]:
        """Return the replies that come before the deadline (``time.monotonic`` seconds), first made first."""
        return list(self.stream(deadline, together=True))

    def stream(self, deadline: float, together: bool = False) -> Iterator[Message]:
        """Yield the replies that come before the deadline; none is taken before the last one was used.

        ``together`` takes all that are there at once, for fewer requests and in the order of their making.
        """
        while self._open:
            for names in [[*self._open]] if together else [[name] for name in self._open]:
                yield from _read_one_by_one(self.take(names, deadline))
            if not self._open or time.monotonic() > deadline:
                break
            self._pause(poll_seconds(self._mode, len(self._open)))

    def take(self, message_ids: Iterable[str], deadline: float = float("inf")) -> list[Message]:
        """Return the replies that have come in, each as the answer to the message as the caller knows it."""
        limits = {name: self._limits[name] for name in message_ids if name in self._open}
        incoming, refused = self._collector.look(limits, deadline, self._open)
        replies = [Message(Error(MALFORMED, why), reply_to=self._open[name]) for name, why in refused.items()]
        answered = set(refused)
        for reply in sorted(incoming, key=lambda reply: reply.metadata.created_at):
            name = reply.metadata.reply_to_message_id
            if name not in self._open:
                log(WARNING, "Node %d answered a message that is not open; ignored.", reply.metadata.src_node_id)
                continue
            if has_expired(reply, deadline):
                continue
            replies.append(self._read(reply, self._open[name]))
            answered.add(name)
        for name in answered:
            del self._open[name]
        return replies


class ClientGrid(Grid):
    """Translates between client ids and node ids, and between named arrays and the flat form.

    Parameters
    ----------
    inner
        Flower's grid.
    nodes
        Node id of each client id.
    header
        What accompanies every message; addressee and layout are filled in here.
    mode
        Whether the clients are simulated.
    wire, exact
        Format in which floating-point arrays travel, and the names of those that travel as they are; see
        :mod:`tasks.wire`.
    memory
        Replies that may have more bytes than this are read as they come, one by one; None holds any number.
    """

    def __init__(
        self,
        inner: Grid,
        nodes: dict[int, int],
        header: MessageHeader,
        mode: Mode,
        wire: str = FULL,
        exact: Collection[str] = (),
        memory: int | None = None,
    ) -> None:
        self._inner, self._mode = inner, mode
        self._node_grid = NodeGrid(inner, mode, self._incoming)
        self._nodes = nodes
        self._wire, self._exact, self._memory = wire, frozenset(exact), memory
        self._survivors = Survivors(self._exchange, sorted(nodes))
        self.header = header
        self.time_to_live: float | None = None

    def begin_round(self, server_round: int, checkpoint_round: int) -> None:
        """Let the following messages say which round they belong to."""
        self.header = replace(self.header, server_round=server_round, checkpoint_round=checkpoint_round)

    def set_run(self, run: object) -> None:
        """Set the run of the inner grid."""
        self._inner.set_run(run)  # type: ignore[arg-type]

    @property
    def run(self) -> object:  # type: ignore[override]
        """Run information of the inner grid."""
        return self._inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message to a client."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the client ids in ascending order, without those whose simulated process died."""
        return sorted(self._nodes.keys() - self._survivors.lost)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages to clients; returns the ids by which replies are pulled."""
        originals = list(messages)
        packed: dict[int, tuple[ArrayRecord, str]] = {}
        outgoing = [self._outgoing(message, packed) for message in originals]
        return self._node_grid.send(outgoing, originals)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come in, as replies of clients."""
        return self._node_grid.take(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for the replies; those that do not come in time are left out.

        Sorted by client, unless they may not fit into memory: then as they come. A reply that the iterator has passed
        is no longer held here.
        """
        self.time_to_live = timeout
        deadline = deadline_after(timeout)
        asked = list(messages)
        self.push_messages(asked)
        if self._memory is not None and self._node_grid.expected_bytes > self._memory:
            return self._as_they_come(asked, deadline)
        replies = self._recovered(asked, self._node_grid.collect(deadline), deadline)
        return _read_one_by_one(sorted(replies, key=lambda reply: reply.metadata.src_node_id))

    def _as_they_come(self, asked: list[Message], deadline: float) -> Iterator[Message]:
        """Yield replies one by one, and last those of clients whose simulated process has died."""
        failed: list[Message] = []
        for reply in self._node_grid.stream(deadline):
            if reply.has_error():
                failed.append(reply)
            else:
                yield reply
        yield from self._recovered(asked, failed, deadline)

    def _recovered(self, asked: list[Message], replies: list[Message], deadline: float) -> list[Message]:
        if self._mode is Mode.SIMULATION:
            return self._survivors.recover(asked, replies, deadline)
        return replies

    def _exchange(self, messages: list[Message], deadline: float) -> list[Message]:
        """Send messages and return the packed replies that come before the deadline, in the order of their making."""
        self.push_messages(messages)
        return self._node_grid.collect(deadline)

    def _outgoing(self, message: Message, packed: dict[int, tuple[ArrayRecord, str]]) -> Message:
        client = message.metadata.dst_node_id
        content = RecordDict()
        layout = ""
        for name, record in message.content.items():
            if isinstance(record, ArrayRecord):
                if id(record) not in packed:  # all clients of a round share one record
                    arrays = views(record)
                    flat, flat_layout, _ = pack_half(arrays, wires_of(arrays, self._wire, self._exact))
                    packed[id(record)] = (ArrayRecord({ARRAYS: flat}), flat_layout)
                if layout:
                    raise ValueError("a message carries at most one set of arrays; this strategy sends two")
                content[name], layout = packed[id(record)]
            else:
                content[name] = record
        config = message.content.config_records.get("config", ConfigRecord())
        role = str(config.get("role", self.header.role))
        header = replace(self.header, client=client, layout=layout, role=role)
        content[RECORD] = ConfigRecord(header.record())
        return Message(
            content,
            dst_node_id=self._nodes[client],
            message_type=message.metadata.message_type,
            ttl=self.time_to_live,
            group_id=str(self.header.server_round),
        )

    def _incoming(self, reply: Message, original: Message) -> Message:
        """Return the reply with named arrays, views of the bytes that came, as if the client answered ``original``."""
        if reply.has_error():
            return Message(reply.error, reply_to=original)
        try:
            return Message(self._unpacked(reply.content, original.content), reply_to=original)
        except Exception as error:  # the content is the client's: whatever it breaks is its fault, not the run's end
            return Message(Error(MALFORMED, f"malformed reply: {type(error).__name__}: {error}"), reply_to=original)

    def _unpacked(self, content: RecordDict, sent: RecordDict) -> RecordDict:
        """Return the same records with named arrays in place of the flat one."""
        named = RecordDict({name: record for name, record in content.items() if name != RECORD})
        sets = records_of(content, ArrayRecord)
        if len(sets) > 1:  # each would become a set of views of the same bytes
            raise protocol.SerializationError(f"expected one set of arrays, got {len(sets)}")
        for name, record in sets.items():
            flat, layout = view_of(record[ARRAYS]), str(records_of(content, ConfigRecord)[RECORD]["layout"])
            base = views(next(iter(records_of(sent, ArrayRecord).values()), ArrayRecord()))
            named[name] = named_record(flat, layout, wires_of(base, self._wire, self._exact), base)
        return named


def has_expired(reply: Message, deadline: float) -> bool:
    """Tell whether a reply only says that its message was not answered in time: a message lives until the deadline."""
    return reply.has_error() and reply.error.code == UNAVAILABLE and time.monotonic() > deadline


def deadline_after(timeout: float | None) -> float:
    """Return when ``timeout`` seconds from now are over, on the monotonic clock; with None never."""
    return time.monotonic() + (float("inf") if timeout is None else timeout)


def poll_seconds(mode: Mode, waiting: int = 1) -> float:
    """Return how long to pause between two looks for the replies to ``waiting`` messages.

    Where nodes are real a look is a request for each message, which keeps the SuperLink busy for 6 ms or more; the
    pause leaves it the larger part of its time.
    """
    return 0.05 if mode is Mode.SIMULATION else max(1.0, 0.02 * waiting)


def _read_one_by_one(replies: list[Message]) -> Iterator[Message]:
    """Yield the replies, and hold none of those already yielded."""
    waiting = deque(replies)
    replies.clear()
    while waiting:
        yield waiting.popleft()
