"""Grid of simulated nodes on one machine: what the ServerApp sends is answered by worker processes, or by this one.

Nodes are numbered as Flower's engine does: client k is the node with the partition-id k. Replies are what the same
ClientApp answers, so a run gives the same numbers as with Flower's engine.
"""

import time
import uuid
from collections.abc import Iterable
from typing import Any, Protocol

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from client_app.node import PARTITION_ID
from server_app.engine.worker import Answered, Asked

RUN_ID, SERVER = 1, 1
FIRST_NODE = 1000


class Pool(Protocol):
    """Who answers messages."""

    def submit(self, asked: Iterable[Asked]) -> None:
        """Take messages."""

    def poll(self, seconds: float) -> list[Answered]:
        """Return the replies that have come, or else those that come first, after ``seconds`` at the latest."""


class WorkerGrid(Grid):
    """The nodes of a simulation; their states are kept here between messages.

    Parameters
    ----------
    pool
        Answers the messages.
    num_clients
        How many nodes there are.
    """

    def __init__(self, pool: Pool, num_clients: int) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SERVER, SERVER  # messages carry them
        self._pool = pool
        self._configs = {
            FIRST_NODE + client: {PARTITION_ID: client, "num-partitions": num_clients} for client in range(num_clients)
        }
        self._states = {node: RecordDict() for node in self._configs}
        self._replies: dict[str, Message] = {}

    def set_run(self, run: object) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Any:
        """There is no run of Flower's to describe."""
        return None

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._configs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages to nodes; returns the ids by which replies are pulled. Late replies are dropped."""
        self._replies = {name: reply for name, reply in self._replies.items() if not _is_late(reply)}
        asked = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())  # as Flower's grids do
            node = message.metadata.dst_node_id
            asked.append(Asked(message, self._configs[node], self._states[node]))
        self._pool.submit(asked)
        return [each.name for each in asked]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def wait(self, seconds: float) -> None:
        """Wait until a reply is there to be pulled, for so long at most."""
        for found in self._pool.poll(seconds):
            self._states[found.reply.metadata.src_node_id] = found.state
            self._replies[found.reply.metadata.reply_to_message_id] = found.reply

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for the replies; those that do not come in time are left out."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        open_ids, replies = set(self.push_messages(messages)), list[Message]()
        while open_ids and (left := deadline - time.monotonic()) > 0:
            self.wait(min(left, 1.0))
            replies += self.pull_messages(open_ids)
            open_ids -= {reply.metadata.reply_to_message_id for reply in replies}
        return replies


def _is_late(reply: Message) -> bool:
    """Tell whether a reply has come to its end; Flower lets it live as long as its message."""
    return time.time() > reply.metadata.created_at + reply.metadata.ttl
