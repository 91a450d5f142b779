"""Partitions that do not look at classes: by chance, by size, or as the data came."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.partition.base import PARTITIONS, Indices, Partitioner, PartitionError, check_alpha, deal


@PARTITIONS.register("iid", "McMahan et al., AISTATS 2017")
@dataclass(frozen=True, kw_only=True)
class Iid(Partitioner):
    """Divide the examples by chance into parts of equal size (up to one example)."""

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Return each client's number equally often, in random order."""
        return rng.permutation(np.arange(len(labels)) % num_clients)


@PARTITIONS.register("quantity-skew", "Li et al. (NIID-Bench), ICDE 2022")
@dataclass(frozen=True, kw_only=True)
class QuantitySkew(Partitioner):
    """Divide the examples by chance into parts of unequal size, their shares drawn from Dirichlet(alpha)."""

    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Deal all examples in proportion to one Dirichlet draw."""
        owners = np.empty(len(labels), dtype=np.int64)
        shares = rng.dirichlet(np.full(num_clients, float(self.alpha)))
        deal(owners, rng.permutation(len(labels)), np.arange(num_clients), shares)
        return owners

    def remedy(self) -> str:
        """Name what makes the parts more even."""
        return f"take fewer clients, an alpha above {self.alpha:g}, or a min_size below {self.min_size}"


@PARTITIONS.register("natural", "Caldas et al. (LEAF), 2018")
@dataclass(frozen=True, kw_only=True, eq=False)
class Natural(Partitioner):
    """Give each group of examples (hospital, author, folder) to one client.

    ``groups`` (n,) names the group of each example, by default the task's own; the names in sorted order become
    clients 0, 1, ...
    """

    groups: Sequence[str] | Sequence[int] | npt.NDArray[np.int64] | npt.NDArray[np.str_] | None = None

    @property
    def is_random(self) -> bool:
        """The groups decide."""
        return False

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Return the place of each example's group among the sorted groups.

        Raises
        ------
        PartitionError
            If no groups are known, or there is not one group name per example and one client per group.
        """
        if self.groups is None:
            raise PartitionError(
                "the partition 'natural' needs a task that says which group each example belongs to (its method "
                "groups), and this one does not; choose another partition"
            )
        names, owners = np.unique(np.asarray(self.groups), return_inverse=True)
        if len(owners) != len(labels):
            raise PartitionError(f"expected one group name per example, {len(labels)}, not {len(owners)}")
        if len(names) != num_clients:
            raise PartitionError(
                f"the examples come in {len(names)} groups, but there are {num_clients} clients; "
                f"set the number of clients to {len(names)}"
            )
        return owners.astype(np.int64)

    def remedy(self) -> str:
        """Name the only thing that can change."""
        return f"take a min_size below {self.min_size}, or join small groups"
