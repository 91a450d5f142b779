"""Replies of nodes, downloaded one by one within a size limit and a deadline; a bad one costs only its sender.

Size: Flower pulls a reply from the SuperLink object by object: a list of them, then each, over one HTTP connection.
Before every answer the SuperLink says how long it is, so one that is too large is refused before its bytes are read,
and before they multiply. A piece of an array that occurs many times is sent once, so how often pieces are listed is
limited too. Numbers in lists take up to eighteen times their bytes when they are read.

Time: a reply may lie at the SuperLink announced and only half uploaded. Flower's own grid waits for the rest, for hours
if it must, while all others expire; and it lets a thread read on when another has found the reply too large. Here
nothing is waited for: what has come is kept, and the next look goes on from there; and no thread outlives a look, so
that everything is read under the limit.

Content: Flower rebuilds a reply from the bytes that its node uploaded, and the SuperLink checks little of them: bytes
that mean nothing raise an error in the middle of a pull, and the replies pulled together with them are lost. The object
inside says itself which message it answers, whatever message it was sent in answer to.

No other module but the engine's grid uses names of Flower that are not public.
"""

import json
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
from flwr.app import Message, MessageType
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tasks.extra_arrays import is_given
from tasks.protocol import Mode

ALLOWANCE = 2**20  # bytes of a reply beside its arrays: names, metrics, lists of numbers per class
PIECE = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE  # bytes of an array that are sent at once
HEAD = 2**10  # bytes that Flower puts around one piece of an array
ARRAY, END_OF_HEAD = b"Array ", b"\x00"
AT_ONCE = 2  # objects that are pulled together, as many as Flower does
# What rebuilding a reply from wrong bytes raises; a failed connection raises OSError or an error of Flower's client.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, DecodeError)


class RejectedReplyError(ValueError):
    """A reply that is not taken: it is too large, or not complete in time. The message is for the operator."""


class SizeLimitUnavailableError(RuntimeError):
    """Replies of real nodes cannot be limited; the message says what to install."""


def reply_limit(message: Message) -> int:
    """Return how many bytes the reply to a message may have: training returns the arrays, all else returns none.

    What is only given to the client does not come back; see :mod:`tasks.extra_arrays`.
    """
    if message.metadata.message_type.partition(".")[0] != MessageType.TRAIN:
        return ALLOWANCE
    sets = message.content.array_records.values()
    return ALLOWANCE + sum(
        len(array.data) + len(name) for arrays in sets for name, array in arrays.items() if not is_given(name)
    )


class NamedSum:
    """A sum over names; a name that comes again, as after a lost connection, counts once. Several threads may add."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}
        self._total = 0
        self._lock = threading.Lock()

    def add(self, name: str, value: int) -> int:
        """Put ``value`` in place of what ``name`` had, and return the sum of all."""
        with self._lock:
            self._total += value - self._values.get(name, 0)
            self._values[name] = value
            return self._total


class SizeLimit:
    """Counts what is pulled for the reply to one message; called with each HTTP response before its body is read.

    Parameters
    ----------
    limit
        Largest size of the reply in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes, self._pieces = NamedSum(), NamedSum()
        self._objects: frozenset[str] = frozenset()

    def __call__(self, response: httpx.Response) -> None:
        """Count a response, or raise.

        Raises
        ------
        RejectedReplyError
            If the reply is too large, or an object is pulled that it does not list.
        """
        kind = response.request.url.path.rpartition("/")[2]
        if response.is_success and kind == "pull-messages":
            self._list(response)
        elif response.is_success and kind == "pull-object":
            self._object(PullObjectRequest.FromString(response.request.content).object_id, response)

    def _list(self, response: httpx.Response) -> None:
        self._take("", response, self._limit)
        found = PullAppMessagesResponse.FromString(response.read())
        names = object_ids(found)
        self._objects = frozenset(names)
        if len(self._objects) < len(names):
            raise RejectedReplyError("the reply lists an object twice")

    def _object(self, name: str, response: httpx.Response) -> None:
        if name not in self._objects:
            raise RejectedReplyError(f"the object {name} is not of this reply")
        self._take(name, response, PIECE + HEAD)
        answer = PullObjectResponse.FromString(response.read())
        if answer.object_content.startswith(ARRAY):
            body = answer.object_content.partition(END_OF_HEAD)[2]
            pieces = self._pieces.add(name, len(json.loads(body)["arraychunk_ids"]))
            if pieces > 1 + self._limit // PIECE:
                raise RejectedReplyError(f"the reply is too large: it lists {pieces:,} pieces of {PIECE:,} bytes")

    def _take(self, name: str, response: httpx.Response, most: int) -> None:
        """Add the size that a response states, and refuse it if that is too much."""
        stated = response.headers.get("content-length")
        if stated is None or "content-encoding" in response.headers:
            raise RejectedReplyError("the SuperLink, or a proxy before it, does not state the size of what it sends")
        if int(stated) > most:
            raise RejectedReplyError(
                f"the reply is too large: {int(stated):,} bytes at once, expected {most:,} at most"
            )
        total = self._bytes.add(name, int(stated))
        if total > self._limit:
            raise RejectedReplyError(
                f"the reply is too large: {total:,} bytes or more, expected {self._limit:,} at most"
            )


def connection(grid: Grid) -> httpx.Client:
    """Return the HTTP connection inside of Flower's grid of real nodes, which has no public name.

    Raises
    ------
    SizeLimitUnavailableError
        If this version of Flower keeps it elsewhere.
    """
    found = getattr(getattr(grid, "_runtime_client", None), "_client", None)
    if not isinstance(found, httpx.Client):
        raise SizeLimitUnavailableError(
            "the size of replies cannot be limited with this version of Flower: install flwr 1.41"
        )
    return found


@contextmanager
def size_limited(http: httpx.Client, limit: SizeLimit) -> Iterator[None]:
    """Apply a limit to all that is pulled over a connection, also to what is still read when the block has failed.

    Nothing may be pulled over the connection by threads that outlive the block: the limit is gone then.
    """
    hooks = http.event_hooks
    http.event_hooks = {**hooks, "response": [limit]}
    try:
        yield
    finally:
        http.event_hooks = hooks


def object_ids(announced: PullAppMessagesResponse) -> list[str]:
    """Return the names of all objects that announced replies consist of, parts before the whole."""
    return [node.object_id for tree in announced.message_object_trees for node in iterate_object_tree(tree)]


class ReplyDownload:
    """What has come of the reply to one message: never more than its limit.

    Parameters
    ----------
    grid
        Flower's grid of real nodes.
    message_id
        The message that is answered.
    limit
        Largest size of the reply in bytes.

    Raises
    ------
    SizeLimitUnavailableError
        If this version of Flower keeps its connection elsewhere.
    """

    def __init__(self, grid: Grid, message_id: str, limit: int) -> None:
        self._http = connection(grid)
        self._link: Any = grid
        self._message_id = message_id
        self._limit = SizeLimit(limit)
        self._announced = PullAppMessagesResponse()
        self._contents: dict[str, bytes] = {}

    @property
    def is_announced(self) -> bool:
        """Whether the reply has been announced; the SuperLink announces it once."""
        return bool(self._announced.messages_list)

    def fetch(self) -> list[Message]:
        """Take what is there, and return the reply once it is whole; an empty list until then.

        Raises
        ------
        RejectedReplyError
            If the reply is too large, or a part of it is not there and will not come.
        """
        with size_limited(self._http, self._limit):
            if not self.is_announced:
                request = PullAppMessagesRequest(message_ids=[self._message_id])
                self._announced = self._link._runtime_client.PullMessages(request)
            if not self.is_announced or not self._pull_objects():
                return []
        return [self._inflate(proto.metadata.message_id) for proto in self._announced.messages_list]

    def discard(self) -> None:
        """Remove the reply from the SuperLink: it is here, or not wanted."""
        for proto in self._announced.messages_list:
            name = proto.metadata.message_id
            self._link._runtime_client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(**self._whose(), message_object_id=name)
            )

    def _pull_objects(self) -> bool:
        """Take the objects that are missing; stop at one that is not there yet, and tell whether there was none."""
        missing = [name for name in object_ids(self._announced) if name not in self._contents]
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            return all(pool.map(self._pull_object, missing))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pull_object(self, name: str) -> bool:
        answer = self._link._runtime_client.PullObject(PullObjectRequest(**self._whose(), object_id=name))
        if not answer.object_found:
            raise RejectedReplyError("a part of the reply is not at the SuperLink, and will not come")
        if answer.object_available:
            self._contents[name] = answer.object_content
        return bool(answer.object_available)

    def _inflate(self, name: str) -> Message:
        message = inflate_object_from_contents(name, self._contents)
        if not isinstance(message, Message):
            raise TypeError(f"expected a message, got {type(message).__name__}")
        message.metadata.__dict__["_message_id"] = name
        return message

    def _whose(self) -> dict[str, Any]:
        return {"node": self._link.node, "run_id": self._link.run.run_id}


class ReplyCollector:
    """Collects the replies that have come in, look by look.

    From real nodes each reply is pulled alone, and one that is announced but not yet uploaded whole holds up no other:
    what is there of it is kept until the next look. Simulated replies are pulled together: they are made by this very
    code, and there may be thousands.
    """

    def __init__(self, grid: Grid, mode: Mode) -> None:
        self._grid, self._mode = grid, mode
        self._downloads: dict[str, ReplyDownload] = {}

    def look(
        self, limits: Mapping[str, int], deadline: float = float("inf"), others: Collection[str] = ()
    ) -> tuple[list[Message], dict[str, str]]:
        """Return the replies that have come in, and by the id of the message they answer why others are not taken.

        Parameters
        ----------
        limits
            By the ids of the messages, how many bytes the reply may have; see :func:`reply_limit`.
        deadline
            After which, on the monotonic clock, the rest of a reply is not waited for.
        others
            Ids of messages that are looked for later; what has come for any but these is dropped.

        Raises
        ------
        SizeLimitUnavailableError
            If replies of real nodes cannot be limited.
        """
        if self._mode is Mode.SIMULATION:
            return list(self._grid.pull_messages(list(limits))), {}
        open_ones = {*limits, *others}
        self._downloads = {name: found for name, found in self._downloads.items() if name in open_ones}
        replies: list[Message] = []
        refused: dict[str, str] = {}
        for message_id, limit in limits.items():
            try:
                replies.extend(self._answers(message_id, limit))
            except RejectedReplyError as reason:
                refused[message_id] = str(reason)
            except UNREADABLE as error:
                refused[message_id] = f"malformed reply: {type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            refused |= self._give_up(limits)
        return replies, refused

    def _answers(self, message_id: str, limit: int) -> list[Message]:
        """Return the replies to a message, if they have come."""
        answers = self._fetch(message_id, limit)
        if any(reply.metadata.reply_to_message_id != message_id for reply in answers):
            raise RejectedReplyError("the reply says that it answers another message")
        return answers

    def _fetch(self, message_id: str, limit: int) -> list[Message]:
        download = self._downloads.pop(message_id, None) or ReplyDownload(self._grid, message_id, limit)
        try:
            found = download.fetch()
        except UNREADABLE:  # refused too
            download.discard()
            raise
        if found:
            download.discard()
        elif download.is_announced:
            self._downloads[message_id] = download
        return found

    def _give_up(self, names: Iterable[str]) -> dict[str, str]:
        """Drop what is not whole of the replies to these messages."""
        late = [name for name in names if name in self._downloads]
        for name in late:
            self._downloads.pop(name).discard()
        return dict.fromkeys(late, "the reply was announced, but not uploaded in time")
