"""Questions to clients outside of training: every answer is read alone, and a bad one costs only itself."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from strategies.updates import MOST_EXAMPLES, ReplyError, one_line

T = TypeVar("T")


@dataclass
class Answers(Generic[T]):
    """Usable answers by client in ascending order, and of all other clients why there is none."""

    found: dict[int, T] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inquiry:
    """How clients are asked.

    Parameters
    ----------
    query
        Message type, such as ``query.profile``.
    examples
        Example count of each client, if known; it counts more than what an answer says.
    timeout
        Seconds to wait for the answers; None waits for all.
    """

    query: str
    examples: Mapping[int, int]
    timeout: float | None = None

    def ask(
        self,
        grid: Grid,
        clients: Iterable[int],
        arrays: ArrayRecord,
        config: ConfigRecord,
        read: Callable[[Mapping[str, object], int], T],
    ) -> Answers[T]:
        """Ask clients about a model; ``read`` turns an answer's values and the client's example count into a ``T``."""
        record = RecordDict({"arrays": arrays, "config": config})
        asked = sorted(clients)
        messages = [Message(record, dst_node_id=client, message_type=self.query) for client in asked]
        answers: Answers[T] = Answers(problems=dict.fromkeys(asked, "no answer in time"))
        found: dict[int, T] = {}
        for reply in grid.send_and_receive(messages, timeout=self.timeout):
            client = reply.metadata.src_node_id
            if client not in answers.problems:  # was not asked, or has answered: the first good answer counts
                continue
            try:
                found[client] = read(*self._values(reply))
                del answers.problems[client]
            except Exception as error:  # the reply is the client's: whatever it breaks is its fault
                answers.problems[client] = one_line(str(error) if isinstance(error, ValueError) else repr(error))
        answers.found = {client: found[client] for client in sorted(found)}
        return answers

    def _values(self, reply: Message) -> tuple[Mapping[str, object], int]:
        if reply.has_error():
            raise ReplyError(f"error {reply.error.code}: {reply.error.reason}")
        records = [*reply.content.metric_records.values()]
        if len(records) != 1:
            raise ReplyError(f"expected one set of metrics, got {len(records)}")
        claimed = records[0].get("num-examples")
        known = self.examples.get(reply.metadata.src_node_id, claimed)
        if type(known) is not int or not 0 < known <= MOST_EXAMPLES:
            raise ReplyError(f"num-examples must be a positive whole number, got {claimed!r}")
        return records[0], known
