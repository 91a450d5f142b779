"""A partition of your own: one large centre and some small ones, with the share of each written down.

A partition says which client owns which example. Run from the repository root:

    winnow run partition.name=examples.planned_sizes:PlannedSizes partition.args='shares = [0.5, 0.3, 0.2]' \
        federation.num-clients=3
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.partition import Indices, Partitioner, PartitionError, deal


@dataclass(frozen=True, kw_only=True)
class PlannedSizes(Partitioner):
    """Divide the examples by chance; client k gets the share ``shares[k]`` of them."""

    shares: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise PartitionError(f"shares must be above 0 with sum 1, not {self.shares}")

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Return the client of each example, (n,)."""
        if len(self.shares) != num_clients:
            raise PartitionError(f"{len(self.shares)} shares for {num_clients} clients: set federation.num-clients")
        owners = np.empty(len(labels), dtype=np.int64)
        deal(owners, rng.permutation(len(labels)), np.arange(num_clients), np.array(self.shares))
        return owners
