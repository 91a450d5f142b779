"""A pre-aggregator of your own: the longest updates are left out.

They are listed in ``strategy.pre-aggregators``, each with its arguments; an import path is put in quotes.

    winnow run strategy.pre-aggregators='"examples.drop_longest:DropLongest" = { share = 0.2 }' strategy.aggregator=mean
"""

from dataclasses import dataclass

import numpy as np

from strategies.aggregators import Doubles, PreAggregator, squared_distances


@dataclass(frozen=True)
class DropLongest(PreAggregator):
    """Leave out the ``share`` of updates that lie farthest from the global model; at least one stays."""

    share: float = 0.1
    keeps_clients = True

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"share = {self.share}: must be at least 0 and below 1")

    def remaining(self, num_updates: int) -> int:
        """Return how many updates stay."""
        return max(1, num_updates - round(self.share * num_updates))

    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return one row (N + 1,) with a single 1 for each update that stays, and their weights."""
        lengths = squared_distances(gram)[-1, :-1]
        kept = np.sort(np.argsort(lengths, kind="stable")[: self.remaining(len(client_weights))])
        return np.eye(len(client_weights) + 1)[kept], client_weights[kept] / client_weights[kept].sum()
