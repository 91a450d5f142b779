"""Clients that train in turn: where only some train in a round, all of them train equally often.

A network remembers what it was trained on last and most. Drawn at random, some clients have trained twice as often as
others, or not for a long time, and their losses differ for that alone. In turn, every client trains once in so many
rounds, and over these rounds each is seen once at every distance from its training.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from flwr.serverapp import Grid

from strategies.aggregators import Rule
from strategies.robust import RobustStrategy
from tasks.seeds import rng


class TurnStrategy(RobustStrategy):
    """Takes the clients of a round from the front of a queue instead of drawing them.

    All other arguments are those of :class:`RobustStrategy`.

    Parameters
    ----------
    in_turn
        False draws the clients at random. With all clients in every round there is no difference.
    """

    def __init__(self, aggregator: Rule, *, in_turn: bool = True, **options: Any) -> None:
        super().__init__(aggregator, **options)
        self.in_turn = in_turn
        self.queue: list[int] = []

    def rounds_for_all(self, clients: int) -> int:
        """Return in how many rounds everybody has a turn; 1 where clients are drawn at random."""
        return -(-clients // self._size(clients)) if self.in_turn else 1

    def _sample(self, stream: str, server_round: int, grid: Grid, fraction: float) -> list[int]:
        """Return the clients of a round; those that evaluate are drawn as usual."""
        if stream != "sample" or not self.in_turn:
            return super()._sample(stream, server_round, grid, fraction)
        clients = set(grid.get_node_ids())
        drawn, self.queue = take_turns(self.queue, clients, self._size(len(clients)), self.seed)
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state and the queue."""
        return {**super().state_dict(), "queue": self.queue}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.queue = state["queue"]

    def _size(self, clients: int) -> int:
        return max(1, round(self.fraction_train * clients))


def take_turns(queue: Sequence[int], present: Iterable[int], size: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the ``size`` clients whose turn it is, in ascending order, and the queue for the next call.

    Who is not in ``queue`` yet comes first, in an order that follows from the seed; who is not present loses its place.
    """
    here = set(present)
    waiting = [client for client in queue if client in here]
    order = [*rng(seed, "turns").permutation(sorted(here - set(waiting))).tolist(), *waiting]
    return sorted(order[:size]), order[size:] + order[:size]
