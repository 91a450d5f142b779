"""Partitioners that are built in: by chance, by size, as the data came, and with label skew.

With label skew clients differ in how often they have each class; the others do not look at classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tasks.arguments import check_flag
from tasks.partition.base import (
    NOBODY,
    PARTITIONS,
    Indices,
    Partitioner,
    PartitionError,
    by_class,
    check_alpha,
    deal,
)


@PARTITIONS.register("iid", "McMahan et al., AISTATS 2017", "https://arxiv.org/abs/1602.05629")
@dataclass(frozen=True, kw_only=True)
class Iid(Partitioner):
    """Divide the examples by chance into parts of equal size (up to one example)."""

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Return each client's number equally often, in random order."""
        return rng.permutation(np.arange(len(labels)) % num_clients)


@PARTITIONS.register("quantity-skew", "Li et al. (NIID-Bench), ICDE 2022", "https://arxiv.org/abs/2102.02079")
@dataclass(frozen=True, kw_only=True)
class QuantitySkew(Partitioner):
    """Divide the examples by chance into parts of unequal size, their shares drawn from Dirichlet(alpha).

    Parameters
    ----------
    alpha
        Concentration: the smaller, the more the clients' sizes differ.
    """

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


@PARTITIONS.register("natural", "Caldas et al. (LEAF), 2018", "https://arxiv.org/abs/1812.01097")
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

    def restricted_to(self, places: Indices, count: int) -> "Natural":
        """Return the partition by the groups of these examples.

        Raises
        ------
        PartitionError
            If there is not one group name for each of all ``count`` examples.
        """
        if self.groups is None:
            return self
        self._check_count(count)
        return replace(self, groups=np.asarray(self.groups)[places])

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
        self._check_count(len(labels))
        if len(names) != num_clients:
            raise PartitionError(
                f"the examples come in {len(names)} groups, but there are {num_clients} clients; "
                f"set the number of clients to {len(names)}"
            )
        return owners.astype(np.int64)

    def remedy(self) -> str:
        """Name the only thing that can change."""
        return f"take a min_size below {self.min_size}, or join small groups"

    def _check_count(self, examples: int) -> None:
        if self.groups is not None and len(self.groups) != examples:
            raise PartitionError(f"expected one group name per example, {examples}, not {len(self.groups)}")


@PARTITIONS.register("dirichlet", "Yurochkin et al., ICML 2019", "https://arxiv.org/abs/1905.12022")
@dataclass(frozen=True, kw_only=True)
class Dirichlet(Partitioner):
    """Divide each class in shares drawn from Dirichlet(alpha).

    Capped as in Li et al., ICDE 2022, and Jiang et al. (FNBench), 2025, which keeps sizes similar.

    Parameters
    ----------
    alpha
        Concentration: the smaller, the more the clients' classes differ.
    capped
        Whether a client that holds its n / N examples gets nothing of the classes that follow.
    """

    alpha: float
    capped: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        check_flag("capped", self.capped)

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Deal class after class.

        The cap sets shares to zero and scales the others to 1, which is the same as a Dirichlet draw over the others.
        """
        owners = np.full(len(labels), NOBODY, dtype=np.int64)
        open_clients = np.arange(num_clients)
        for examples in by_class(labels, rng):
            if self.capped:
                sizes = np.bincount(owners[owners != NOBODY], minlength=num_clients)
                open_clients = np.flatnonzero(sizes < len(labels) / num_clients)
            deal(owners, examples, open_clients, rng.dirichlet(np.full(len(open_clients), float(self.alpha))))
        return owners

    def remedy(self) -> str:
        """Name what makes the parts more even."""
        return f"take fewer clients, an alpha above {self.alpha:g}, or a min_size below {self.min_size}"


@PARTITIONS.register("bernoulli-dirichlet", "Xu et al. (FedCorr), CVPR 2022", "https://arxiv.org/abs/2204.04677")
@dataclass(frozen=True, kw_only=True)
class BernoulliDirichlet(Partitioner):
    """Let each client have each class with probability p, and divide a class among those in Dirichlet(alpha) shares.

    Every client has at least one class.

    Parameters
    ----------
    p
        Probability that a client has a class.
    alpha
        Concentration: the smaller, the more a class's shares differ.
    """

    p: float
    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if isinstance(self.p, bool) or not isinstance(self.p, int | float) or not 0 < self.p <= 1:
            raise PartitionError(f"p must be a probability above 0 and at most 1, not {self.p!r}")

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Draw who has which class, then deal class after class; a class that no client has stays with nobody."""
        owners = np.full(len(labels), NOBODY, dtype=np.int64)
        classes = by_class(labels, rng)
        for examples, has in zip(classes, self.draw_classes(len(classes), num_clients, rng).T, strict=True):
            clients = np.flatnonzero(has)
            if len(clients):
                deal(owners, examples, clients, rng.dirichlet(np.full(len(clients), float(self.alpha))))
        return owners

    def draw_classes(self, num_classes: int, num_clients: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Draw who has which class, (N, K): independent with probability p, given that each client has at least one.

        The first class that a client has is drawn from its geometric distribution cut at K; later ones are free.
        """
        columns = np.arange(num_classes)
        first_probabilities = self.p * (1 - self.p) ** columns
        first = rng.choice(columns, size=(num_clients, 1), p=first_probabilities / first_probabilities.sum())
        free = rng.random((num_clients, num_classes)) < self.p
        return np.asarray((columns == first) | ((columns > first) & free))

    def remedy(self) -> str:
        """Name what makes the parts more even."""
        return (
            f"take fewer clients, a p above {self.p:g} (each class needs a client), an alpha above {self.alpha:g}, "
            f"or a min_size below {self.min_size}"
        )


@PARTITIONS.register("shards", "McMahan et al., AISTATS 2017", "https://arxiv.org/abs/1602.05629")
@dataclass(frozen=True, kw_only=True)
class Shards(Partitioner):
    """Sort the examples by class, cut them into equal shards and give each client the same number of shards.

    Parameters
    ----------
    shards_per_client
        Number of shards that each client gets.
    """

    shards_per_client: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("shards_per_client", self.shards_per_client)

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Deal the shards, whose sizes differ by at most one example, by chance.

        Raises
        ------
        PartitionError
            If there are more shards than examples.
        """
        count = num_clients * self.shards_per_client
        if count > len(labels):
            raise PartitionError(
                f"{num_clients} clients of {self.shards_per_client} shards need {count} examples, but there are "
                f"{len(labels)}; take fewer clients or fewer shards_per_client"
            )
        ordered = np.concatenate(by_class(labels, rng))
        shard_owners = rng.permutation(np.arange(count) % num_clients)
        owners = np.empty(len(labels), dtype=np.int64)
        owners[ordered] = np.repeat(shard_owners, [len(shard) for shard in np.array_split(ordered, count)])
        return owners


@PARTITIONS.register("pathological", "Li et al. (NIID-Bench), ICDE 2022", "https://arxiv.org/abs/2102.02079")
@dataclass(frozen=True, kw_only=True)
class Pathological(Partitioner):
    """Give each client the same number of classes; the clients of a class share it evenly.

    Parameters
    ----------
    classes_per_client
        Number of classes that each client has.
    """

    classes_per_client: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("classes_per_client", self.classes_per_client)

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Let client after client take the classes that the fewest have, ties by chance.

        Raises
        ------
        PartitionError
            If there are too few classes for a client, or too few clients for the classes.
        """
        classes = by_class(labels, rng)
        if not len(classes) / num_clients <= self.classes_per_client <= len(classes):
            raise PartitionError(
                f"classes_per_client = {self.classes_per_client} does not fit {num_clients} clients and "
                f"{len(classes)} classes; it must be at least their ratio, so that each class has a client, "
                f"and at most {len(classes)}"
            )
        has = np.zeros((num_clients, len(classes)), dtype=bool)
        for client in rng.permutation(num_clients):
            has[client, np.lexsort((rng.random(len(classes)), has.sum(axis=0)))[: self.classes_per_client]] = True
        owners = np.empty(len(labels), dtype=np.int64)
        for examples, members in zip(classes, has.T, strict=True):
            clients = rng.permutation(np.flatnonzero(members))
            owners[examples] = clients[np.arange(len(examples)) % len(clients)]
        return owners

    def remedy(self) -> str:
        """Name what makes small classes go round."""
        return f"take fewer clients, fewer classes_per_client, or a min_size below {self.min_size}"


def _check_count(name: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise PartitionError(f"{name} must be a whole number of at least 1, not {value!r}")
