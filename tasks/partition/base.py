"""Partitions, what all kinds have in common: every training example belongs to exactly one client of the simulation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.plugins import Registry

Indices = npt.NDArray[np.int64]
NOBODY = -1
"""Owner of an example that an attempt could not give to anyone."""
ATTEMPTS = 1000
"""Draws of a random partition before it is given up."""


class PartitionError(ValueError):
    """A partition that is impossible for these examples and clients; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class Partitioner(ABC):
    """How the training examples are divided among the clients.

    ``min_size`` is the smallest share that is accepted: a random partition is drawn again until every client has
    so many examples, at most 1000 times.

    Parameters
    ----------
    min_size
        Fewest examples of a client; where chance gives one fewer, the data is divided anew.
    """

    min_size: int = 1

    def __post_init__(self) -> None:
        if type(self.min_size) is not int or self.min_size < 1:
            raise PartitionError(f"min_size must be a whole number of at least 1, not {self.min_size!r}")

    @abstractmethod
    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Draw the client of each example (n,), or ``NOBODY``; ``labels`` are (n,), or masks (n, H, W)."""

    def restricted_to(self, places: Indices, count: int) -> "Partitioner":
        """Return the partition of the examples at ``places`` of ``count``: one that knows each example overrides it."""
        return self

    def __call__(self, labels: npt.NDArray[Any], num_clients: int, rng: np.random.Generator) -> list[Indices]:
        """Divide the examples.

        Parameters
        ----------
        labels
            Class of each example (n,); masks (n, H, W) where the partition does not look at classes.
        num_clients
            Number of clients N.
        rng
            The only source of randomness.

        Returns
        -------
        N disjoint, sorted index arrays that together cover 0..n-1.

        Raises
        ------
        PartitionError
            If the examples cannot be divided like this; the message says what to change.
        """
        self._check(labels, num_clients)
        labels = np.asarray(labels)
        best = -1
        for _ in range(ATTEMPTS if self.is_random else 1):
            owners = self._checked(self.owners(labels, num_clients, rng), len(labels), num_clients)
            left_over, *sizes = np.bincount(owners + 1, minlength=num_clients + 1).tolist()
            if left_over == 0 and min(sizes) >= self.min_size:
                return np.split(np.argsort(owners, kind="stable"), np.cumsum(sizes)[:-1])
            best = max(best, min(sizes) if left_over == 0 else -1)
        raise PartitionError(self._failure(num_clients, best))

    @property
    def is_random(self) -> bool:
        """Whether another draw can have other sizes."""
        return True

    def remedy(self) -> str:
        """Say what makes this partition possible."""
        return f"take fewer clients or a smaller min_size than {self.min_size}"

    def _check(self, labels: npt.NDArray[Any], num_clients: int) -> None:
        if num_clients < 1:
            raise PartitionError(f"the number of clients must be at least 1, not {num_clients}")
        if num_clients * self.min_size > len(labels):
            raise PartitionError(
                f"{len(labels)} examples are not enough for {num_clients} clients of at least {self.min_size}; "
                "take fewer clients, a smaller min_size, or more examples"
            )

    def _checked(self, owners: Indices, num_examples: int, num_clients: int) -> Indices:
        owners = np.asarray(owners)
        fits = owners.dtype.kind in "iu" and owners.shape == (num_examples,)
        if fits and owners.min() >= NOBODY and owners.max() < num_clients:
            return owners
        found = f"numbers from {owners.min()} to {owners.max()}" if fits else f"{owners.dtype} of shape {owners.shape}"
        raise PartitionError(
            f"{type(self).__name__}.owners must return one client number per example, whole numbers "
            f"0..{num_clients - 1} of shape ({num_examples},), got {found}"
        )

    def _failure(self, num_clients: int, best: int) -> str:
        draws = f" in {ATTEMPTS} draws" if self.is_random else ""
        if best < 0:
            return f"{type(self).__name__} partition: some examples found no client{draws}; {self.remedy()}"
        return (
            f"{type(self).__name__} partition: {num_clients} clients of at least {self.min_size} examples were not "
            f"found{draws} (at best the smallest had {best}); {self.remedy()}"
        )


PARTITIONS = Registry("partition", Partitioner, run_sets=("groups",))


def by_class(labels: npt.NDArray[Any], rng: np.random.Generator) -> list[Indices]:
    """Return the examples of each class that occurs, in random order, classes ascending.

    Raises
    ------
    PartitionError
        If the labels are not one whole number per example.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise PartitionError(
            f"a partition by class needs one class number per example, not {labels.dtype} of shape {labels.shape}; "
            "for masks and others choose 'iid', 'quantity-skew' or 'natural'"
        )
    counts = np.unique(labels, return_counts=True)[1]
    classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    return [rng.permutation(examples) for examples in classes]


def deal(owners: Indices, examples: Indices, clients: Indices, shares: npt.NDArray[np.float64]) -> None:
    """Give ``examples`` (m,) to ``clients`` (c,) in ``owners`` (n,), in parts proportional to ``shares`` (c,)."""
    cuts = (np.cumsum(shares / shares.sum())[:-1] * len(examples)).astype(np.int64)
    owners[examples] = np.repeat(clients, np.diff(cuts, prepend=0, append=len(examples)))


def check_alpha(alpha: float) -> None:
    """Raise ``PartitionError`` unless ``alpha`` is a positive finite concentration of a Dirichlet distribution."""
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        raise PartitionError(f"alpha must be a number above 0 (small = skewed, large = even), not {alpha!r}")
