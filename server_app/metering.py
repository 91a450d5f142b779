"""How large a reply may be: a larger one is refused before its bytes are read, and before they multiply.

Flower pulls a reply from the SuperLink object by object: a list of them, then each, over one HTTP connection. Before
every answer the SuperLink says how long it is. A piece of an array that occurs many times travels once, so how often
pieces are listed is limited too. Numbers in lists take up to eighteen times their bytes when they are read.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from flwr.app import Message, MessageType
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

ALLOWANCE = 2**20  # bytes of a reply beside its arrays: names, metrics, lists of numbers per class
PIECE = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE  # bytes of an array that travel at once
HEAD = 2**10  # bytes that Flower puts around one piece of an array
ARRAY, END_OF_HEAD = b"Array ", b"\x00"


class RefusedReplyError(ValueError):
    """A reply that is not taken: it is too large, or not complete in time. The message is for the operator."""


class UnmeteredError(RuntimeError):
    """Replies of real nodes cannot be limited; the message says what to install."""


def reply_limit(message: Message) -> int:
    """Return how many bytes the reply to a message may have: training returns the arrays, all else returns none."""
    trains = message.metadata.message_type.partition(".")[0] == MessageType.TRAIN
    sent = sum(record.count_bytes() for record in message.content.array_records.values())
    return ALLOWANCE + (sent if trains else 0)


class Tally:
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


class Meter:
    """Counts what is pulled for the reply to one message; called with each HTTP response before its body is read.

    Parameters
    ----------
    limit
        Largest size of the reply in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes, self._pieces = Tally(), Tally()
        self._objects: frozenset[str] = frozenset()

    def __call__(self, response: httpx.Response) -> None:
        """Count a response, or raise.

        Raises
        ------
        RefusedReplyError
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
            raise RefusedReplyError("the reply lists an object twice")

    def _object(self, name: str, response: httpx.Response) -> None:
        if name not in self._objects:
            raise RefusedReplyError(f"the object {name} is not of this reply")
        self._take(name, response, PIECE + HEAD)
        answer = PullObjectResponse.FromString(response.read())
        if answer.object_content.startswith(ARRAY):
            body = answer.object_content.partition(END_OF_HEAD)[2]
            pieces = self._pieces.add(name, len(json.loads(body)["arraychunk_ids"]))
            if pieces > 1 + self._limit // PIECE:
                raise RefusedReplyError(f"the reply is too large: it lists {pieces:,} pieces of {PIECE:,} bytes")

    def _take(self, name: str, response: httpx.Response, most: int) -> None:
        """Add the size that a response states, and refuse it if that is too much."""
        stated = response.headers.get("content-length")
        if stated is None or "content-encoding" in response.headers:
            raise RefusedReplyError("the SuperLink, or a proxy before it, does not state the size of what it sends")
        if int(stated) > most:
            raise RefusedReplyError(f"the reply is too large: {int(stated):,} bytes at once, expected {most:,} at most")
        total = self._bytes.add(name, int(stated))
        if total > self._limit:
            raise RefusedReplyError(
                f"the reply is too large: {total:,} bytes or more, expected {self._limit:,} at most"
            )


def connection(grid: Grid) -> httpx.Client:
    """Return the HTTP connection inside of Flower's grid of real nodes, which has no public name.

    Raises
    ------
    UnmeteredError
        If this version of Flower keeps it elsewhere.
    """
    found = getattr(getattr(grid, "_runtime_client", None), "_client", None)
    if not isinstance(found, httpx.Client):
        raise UnmeteredError("the size of replies cannot be limited with this version of Flower: install flwr 1.41")
    return found


@contextmanager
def metered(http: httpx.Client, meter: Meter) -> Iterator[None]:
    """Let the meter see all that is pulled over a connection, also what is still read when the block has failed.

    Nothing may be pulled over the connection by threads that outlive the block: the meter is gone then.
    """
    hooks = http.event_hooks
    http.event_hooks = {**hooks, "response": [meter]}
    try:
        yield
    finally:
        http.event_hooks = hooks


def object_ids(announced: PullAppMessagesResponse) -> list[str]:
    """Return the names of all objects that announced replies consist of, parts before the whole."""
    return [node.object_id for tree in announced.message_object_trees for node in iterate_object_tree(tree)]
