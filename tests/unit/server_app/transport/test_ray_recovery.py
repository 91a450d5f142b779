import random
import time

from flwr.app import Error, Message, MetricRecord, RecordDict

from server_app.transport.ray_recovery import Survivors, actor_died
from tests.messages import instruction


class Pool:
    """Flower's actor pool: two actors, one of which dies with ``killer``; the dead one is handed out first."""

    def __init__(self, killer: int | None, seed: int) -> None:
        self.killer = killer
        self.dead = False
        self.order = random.Random(seed)
        self.trained: list[int] = []

    def exchange(self, messages: list[Message], deadline: float) -> list[Message]:
        queue = list(messages)
        self.order.shuffle(queue)
        replies = []
        for place, message in enumerate(queue):
            meets_the_living = place == 1 if self.dead else message.metadata.dst_node_id != self.killer
            if meets_the_living:
                replies.append(self._work(message))
            else:
                self.dead = True
                reason = "<class 'ray.exceptions.ActorDiedError'>:<'The actor died'>"
                replies.append(Message(Error(0, reason), reply_to=message))
        return replies

    def _work(self, message: Message) -> Message:
        if message.metadata.message_type == "train":
            self.trained.append(message.metadata.dst_node_id)
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)


def play(pool: Pool, survivors: Survivors, clients: list[int]) -> dict[int, bool]:
    """Send one round; True for each client that answered."""
    messages = [instruction(client) for client in clients]
    deadline = time.monotonic() + 60
    replies = survivors.recover(messages, pool.exchange(messages, deadline), deadline)
    return {reply.metadata.src_node_id: not actor_died(reply) for reply in replies}


def test_one_death_costs_one_reply_and_later_rounds_none():
    clients = list(range(8))
    for seed in range(20):
        pool = Pool(killer=5, seed=seed)
        survivors = Survivors(pool.exchange, clients)
        assert play(pool, survivors, clients) == {client: client != 5 for client in clients}
        assert survivors.lost == {5}
        living = [client for client in clients if client not in survivors.lost]
        assert play(pool, survivors, living) == dict.fromkeys(living, True)
        assert play(pool, survivors, [3]) == {3: True}
        assert sorted(pool.trained) == sorted([*living, *living, 3])


def test_without_a_death_nothing_is_asked_again():
    pool = Pool(killer=None, seed=1)
    survivors = Survivors(pool.exchange, [0, 1])
    assert play(pool, survivors, [0, 1]) == {0: True, 1: True}
    assert (pool.trained.count(0), pool.trained.count(1), survivors.lost) == (1, 1, set())


def test_when_no_actor_is_left_it_gives_up():
    survivors = Survivors(lambda messages, deadline: [_dead(message) for message in messages], [0, 1, 2])
    messages = [instruction(client) for client in (0, 1, 2)]
    replies = survivors.recover(messages, [_dead(message) for message in messages], time.monotonic() + 60)
    assert [actor_died(reply) for reply in replies] == [True, True, True]


def _dead(message: Message) -> Message:
    return Message(Error(0, "ActorDiedError"), reply_to=message)
