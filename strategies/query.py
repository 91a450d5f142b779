"""Query of clients outside of training: every answer is read alone, and a bad one costs only itself."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from strategies.validation import MOST_EXAMPLES, ReplyError, one_line
from tasks.extra_arrays import is_beside, model_part

T = TypeVar("T")


class Sender(Protocol):
    """What delivers messages: a grid of Flower's, of clients, or of nodes."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and return the replies that come within ``timeout`` seconds."""


@dataclass
class Answers(Generic[T]):
    """Usable answers by client in ascending order, and of all other clients why there is none."""

    found: dict[int, T] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


def query(
    grid: Sender,
    clients: Iterable[int],
    kind: str,
    content: RecordDict,
    read: Callable[[int, MetricRecord], T],
    *,
    timeout: float | None = None,
    silence: str = "no answer in time",
    failure: str = "error {code}: {reason}",
) -> Answers[T]:
    """Ask clients all the same and collect what they say.

    Parameters
    ----------
    grid
        What delivers the messages.
    clients
        Who is asked, as the grid names them: clients, or before their registration nodes.
    kind
        Message type, such as ``query.profile``.
    content
        What they are sent.
    read
        Turns a client and the metrics of its answer into a ``T``; whatever it raises is why the answer is not usable.
    timeout
        Seconds to wait for the answers; None waits for all.
    silence, failure
        Why there is no answer of a client that sent none, or sent an error with a code and a reason.
    """
    asked = sorted(clients)
    # Made while they are sent: the wait begins first, so that no message expires before it is over.
    messages = (Message(content, dst_node_id=client, message_type=kind, ttl=timeout) for client in asked)
    problems = dict.fromkeys(asked, silence)
    found: dict[int, T] = {}
    for reply in grid.send_and_receive(messages, timeout=timeout):
        client = reply.metadata.src_node_id
        if client not in problems:  # was not asked, or has answered: the first good answer counts
            continue
        try:
            found[client] = read(client, _metrics(reply, failure))
            del problems[client]
        except Exception as error:  # the reply is the client's: whatever it breaks is its fault
            problems[client] = one_line(str(error) if isinstance(error, ValueError) else repr(error))
    return Answers({client: found[client] for client in sorted(found)}, problems)


def model_record(arrays: ArrayRecord) -> ArrayRecord:
    """Return the record of the model alone, the same one if there is nothing beside it: what questions are about."""
    if not any(map(is_beside, arrays)):
        return arrays
    record = ArrayRecord()
    for name, array in model_part(arrays).items():
        record[name] = array
    return record


def with_count(
    read: Callable[[Mapping[str, object], int], T], examples: Mapping[int, int]
) -> Callable[[int, Mapping[str, object]], T]:
    """Return a reader that also gets the client's example count: the one in ``examples``, else what its answer says."""

    def read_counted(client: int, values: Mapping[str, object]) -> T:
        claimed = values.get("num-examples")
        known = examples.get(client, claimed)
        if type(known) is not int or not 0 < known <= MOST_EXAMPLES:
            raise ReplyError(f"num-examples must be a positive whole number, got {claimed!r}")
        return read(values, known)

    return read_counted


def _metrics(reply: Message, failure: str) -> MetricRecord:
    if reply.has_error():
        raise ReplyError(failure.format(code=reply.error.code, reason=reply.error.reason or "no reason given"))
    records = [*reply.content.metric_records.values()]
    if len(records) != 1:
        raise ReplyError(f"expected one set of metrics, got {len(records)}")
    return records[0]
