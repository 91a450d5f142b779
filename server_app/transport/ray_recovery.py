"""Ray recovery: a simulation goes on after the process of a client has died.

Flower never replaces a dead Ray actor: it goes back into the pool and is handed out first, so every message that meets
it fails at once, whoever it is for. The client whose message was being worked on when the actor died is charged with
it and takes no further part; the others are asked again until a living actor has answered. One such client is survived
where there are two actors or more; who caused a further death cannot be told, so that ends in too few replies.
"""

import time
from collections.abc import Callable
from logging import WARNING

from flwr.app import Message, RecordDict
from flwr.common.logger import log

DEAD_ACTOR = "ActorDied"
PATIENCE = 20  # attempts in a row that bring nothing new

Exchange = Callable[[list[Message], float], list[Message]]


def actor_died(reply: Message) -> bool:
    """Tell whether a reply says that the message met a dead actor."""
    return reply.has_error() and DEAD_ACTOR in (reply.error.reason or "")


class Survivors:
    """Keeps a simulation going after the death of an actor.

    Parameters
    ----------
    exchange
        Sends messages and returns the replies in the order in which they were made; takes a deadline
        (``time.monotonic`` seconds).
    clients
        All client ids.
    """

    def __init__(self, exchange: Exchange, clients: list[int]) -> None:
        self._exchange = exchange
        self._clients = clients
        self.lost: set[int] = set()

    def recover(self, messages: list[Message], replies: list[Message], deadline: float) -> list[Message]:
        """Return the replies after asking those clients again whose messages met a dead actor."""
        failed = [reply.metadata.src_node_id for reply in replies if actor_died(reply)]
        if not failed:
            return replies
        if not self.lost:
            self._lose(failed[0])
        final = {reply.metadata.src_node_id: reply for reply in replies}
        pending = [message for message in messages if message.metadata.dst_node_id in {*failed} - self.lost]
        attempt = idle = 0
        while pending and idle < PATIENCE and time.monotonic() < deadline:
            new = self._exchange([self._decoy(attempt), *pending], deadline)
            answers = {reply.metadata.src_node_id: reply for reply in new if _same_kind(reply, pending[0])}
            final.update(answers)
            left = [m for m in pending if actor_died(final[m.metadata.dst_node_id])]
            idle = idle + 1 if len(left) == len(pending) else 0
            pending, attempt = left, attempt + 1
        return list(final.values())

    def _lose(self, client: int) -> None:
        self.lost.add(client)
        log(WARNING, "The process of client %d died. It takes no further part in this simulation.", client)

    def _decoy(self, attempt: int) -> Message:
        """Return a harmless query that may meet the dead actor in place of a message that matters."""
        living = [client for client in self._clients if client not in self.lost]
        return Message(RecordDict(), dst_node_id=living[attempt % len(living)], message_type="query.identity")


def _same_kind(reply: Message, message: Message) -> bool:
    return reply.metadata.message_type == message.metadata.message_type
