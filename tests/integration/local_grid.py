"""A federation in this process: Flower's messages and our apps, without Ray and without sockets."""

import uuid
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from client_app.cohorts.answers import answer_together

Tamper = Callable[[int, Message, Message], Message | list[Message] | None]


class LocalGrid(Grid):
    """Calls the ClientApp for every message. Node ids are large and unordered, as Flower's are.

    ``tamper(client, message, reply)`` may return another reply, several, or none at all.
    """

    def __init__(self, client_app: ClientApp, run_config: dict[str, Any], num_clients: int) -> None:
        for name in ("task_id", "run_id", "node_id"):
            setattr(TaskIdentity, name, 1)
        self._app = client_app
        self._nodes = {(7919 * (client + 3)) % 104729 + 1000: client for client in range(num_clients)}
        self._contexts = {
            node: Context(1, node, {"partition-id": client, "num-partitions": num_clients}, RecordDict(), run_config)
            for node, client in self._nodes.items()
        }
        self._replies: dict[str, list[Message]] = {}
        self.tamper: Tamper = lambda client, message, reply: reply

    def set_run(self, run: object) -> None:
        pass

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return Message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        asked = list(messages)
        for message in asked:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
        contexts = [self._contexts[message.metadata.dst_node_id] for message in asked]
        for message, reply in zip(asked, answer_together(asked, contexts, self._answer), strict=True):
            changed = self.tamper(self._nodes[message.metadata.dst_node_id], message, reply)
            replies = changed if isinstance(changed, list) else [] if changed is None else [changed]
            self._replies[message.metadata.message_id] = replies
        return [message.metadata.message_id for message in asked]

    def _answer(self, message: Message, context: Context) -> Message:
        try:
            return self._app(message, context)
        except Exception as error:
            return Message(Error(2, repr(error)), reply_to=message)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [reply for name in message_ids for reply in self._replies.pop(name, [])]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))
