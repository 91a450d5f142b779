"""Clients that train in turn: who is next, and what happens to the order when clients come and go."""

from collections import Counter
from itertools import pairwise

import pytest

from strategies.noise_partition import round_robin

NOBODY: list[int] = []


def draws(rounds: int, clients: int, size: int, seed: int = 0) -> list[list[int]]:
    queue, drawn = NOBODY, []
    for _ in range(rounds):
        now, queue = round_robin(queue, range(clients), size, seed)
        drawn.append(now)
    return drawn


@pytest.mark.parametrize(("clients", "size"), [(20, 6), (20, 5), (7, 3), (5, 1), (4, 4)])
def test_nobody_trains_twice_as_long_as_somebody_waits(clients: int, size: int):
    counts: Counter[int] = Counter(dict.fromkeys(range(clients), 0))
    for drawn in draws(50, clients, size):
        assert len(set(drawn)) == size
        counts.update(drawn)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_every_client_comes_back_after_the_same_number_of_rounds():
    drawn = draws(30, 20, 5)
    for client in range(20):
        rounds = [i for i, now in enumerate(drawn) if client in now]
        assert {later - earlier for earlier, later in pairwise(rounds)} == {4}


def test_the_order_follows_from_the_seed():
    assert draws(4, 20, 5, seed=1) == draws(4, 20, 5, seed=1) != draws(4, 20, 5, seed=2)


def test_a_new_client_is_next_and_the_others_keep_their_order():
    _, queue = round_robin(NOBODY, range(6), 2, 0)
    now, longer = round_robin(queue, range(7), 1, 0)
    assert now == [6]
    assert longer == [*queue, 6]


def test_a_client_that_is_gone_is_skipped():
    _, queue = round_robin(NOBODY, range(6), 2, 0)
    first = queue[0]
    now, shorter = round_robin(queue, set(range(6)) - {first}, 2, 0)
    assert now == sorted(queue[1:3])
    assert first not in shorter
