"""What an aggregation rule is: N client updates and their prior weights in, one update out.

An update is a client's model minus the global model, one float32 or float64 vector of length P. A rule belongs to one
of two families, and sees only what that family needs:

- :class:`Reweighting` chooses one weight per client from the inner products of the updates;
- :class:`CoordinateWise` combines the values of each coordinate on its own.

Shapes: N clients, P coordinates, B coordinates of one block.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from strategies.gram import Doubles, Vector, sum_over_blocks
from strategies.points import Points, not_finite

Combine = Callable[[slice, Doubles], Doubles]


@dataclass(frozen=True)
class Aggregate:
    """The combined update ``value`` (P,), in the precision of the updates, and how it relates to each client.

    ``weights`` (N,) are nonnegative and sum to 1, or to less where the rest lies on the global model; None where a
    client has no single weight. ``distances`` (N,) are the Euclidean distances of the updates to ``value``.
    """

    value: Vector
    weights: Doubles | None
    distances: Doubles


class Counted:
    """Something that needs a least number of updates: a rule, or a step before it."""

    @property
    def name(self) -> str:
        """Name in the configuration: that of the class in small letters."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()

    @property
    def minimum(self) -> int:
        """Fewest updates that can be combined."""
        return 1

    def problem(self, num_updates: int, fact: str = "there are {}") -> str:
        """Return why so many updates are too few, or an empty string; ``fact`` says where the number comes from."""
        if num_updates >= self.minimum:
            return ""
        return f"{self} needs the updates of at least {self.minimum} clients, {fact.format(num_updates)}"

    def remark(self, num_updates: int) -> str:
        """Return what is odd but allowed about so many updates, or an empty string."""
        return ""

    def __str__(self) -> str:
        """Return the name as users write it, with the number of hostile updates if there is one."""
        hostile = getattr(self, "f", None)
        return self.name if hostile is None else f"{self.name} with f = {hostile}"


class Rule(Counted, ABC):
    """Any aggregation rule. Derive your own from :class:`Reweighting` or :class:`CoordinateWise`.

    ``robust`` tells whether a minority of hostile updates cannot decide the result; the plain mean is not.
    ``needs_clients`` tells whether every point must be one client's update, so that no step may mix them before.
    """

    robust: bool = True
    needs_clients: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return how to combine one block, ``(columns, block (N, B)) -> (B,)``, and the points' weights if any."""


@dataclass(frozen=True)
class Tolerant(Counted):
    """Part of a rule or step that has to know how many of the updates may be hostile.

    Parameters
    ----------
    f
        Number of hostile updates to withstand. Left out, it is the largest number that the round's updates allow.
    """

    f: int | None = None
    per_hostile: ClassVar[int] = 2
    beside: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.f is not None and self.f < 0:
            raise ValueError(f"f = {self.f}: the number of hostile updates must be at least 0")

    @property
    def minimum(self) -> int:
        """Fewest updates among which ``f`` hostile ones can be withstood."""
        return self.per_hostile * (self.f or 0) + self.beside

    def hostile(self, num_updates: int) -> int:
        """Return the number of hostile updates to withstand among so many."""
        return (num_updates - self.beside) // self.per_hostile if self.f is None else self.f

    def remark(self, num_updates: int) -> str:
        """Return that no hostile update is withstood although f was left open, or an empty string."""
        idle = self.f is None and self.hostile(num_updates) == 0
        return f"{self} withstands no hostile update: the largest f for {num_updates} updates is 0" if idle else ""


class Reweighting(Rule):
    """A rule that is a weighted mean, with weights that depend on how the updates lie to each other.

    ``shrinks`` tells that the global model itself is one of the points: the matrix is then (N + 1, N + 1) and there
    are N + 1 weights, the last one for the global model.
    """

    shrinks: ClassVar[bool] = False

    @abstractmethod
    def weights(self, gram: Doubles, prior: Doubles) -> Doubles:
        """Return every client's weight.

        Parameters
        ----------
        gram
            Inner products of the updates, (N, N), relative to a common reference; see :mod:`strategies.gram`.
        prior
            Weights before looking at the updates, (N,): nonnegative, sum 1.

        Returns
        -------
        Doubles
            (N,), nonnegative, sum 1.
        """

    def weigh(self, points: Points, prior: Doubles) -> Doubles:
        """Return every point's weight from the points themselves; :meth:`weights` is all that most rules need."""
        return self.weights(points.gram if self.shrinks else points.gram[:-1, :-1], prior)

    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the weighted sum of a block, and the weights."""
        weights = np.asarray(self.weigh(points, prior), np.float64)
        expected = len(prior) + self.shrinks
        if weights.shape != (expected,) or not (weights >= 0).all() or not abs(weights.sum() - 1) < 1e-6:
            raise ValueError(
                f"{type(self).__name__}.weights must return {expected} nonnegative weights with sum 1, got {weights}"
            )
        used = weights[: len(prior)]
        return lambda _, block: used @ block, used


class CoordinateWise(Rule):
    """A rule that combines each coordinate on its own, such as the median."""

    @abstractmethod
    def combine(self, block: Doubles, prior: Doubles) -> Doubles:
        """Return the combined values of some coordinates; called from several threads at once.

        Parameters
        ----------
        block
            All clients' values of B coordinates, (N, B), read-only.
        prior
            Weights before looking at the updates, (N,): nonnegative, sum 1.

        Returns
        -------
        Doubles
            (B,)
        """

    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return :meth:`combine`; no client has one weight for all coordinates."""
        return lambda _, block: self.combine(block, prior), None


def aggregate(
    rule: Rule,
    updates: Sequence[Vector],
    prior: npt.ArrayLike,
    *,
    sizes: Sequence[int] = (),
    roles: Sequence[str] = (),
    seed: int = 0,
) -> Aggregate:
    """Combine client updates into one.

    Parameters
    ----------
    rule
        The aggregation rule.
    updates
        N vectors (P,), float32 or float64: client model minus global model, in a fixed order of the clients.
    prior
        N nonnegative weights, for instance example counts; they are divided by their sum. An update with a prior of 0
        does not count: the result is what it would be without it.
    sizes
        Lengths of the tensors in each update, for rules that treat each on its own; empty = one tensor.
    roles
        What each client is known to be: clean, noisy or unknown; empty = all unknown.
    seed
        Decides what a rule or step draws.

    Raises
    ------
    ValueError
        If there are too few updates for the rule, if updates and prior do not fit together, are not finite or above
        1e150, or if a rule of your own returns something that does not fit.
    """
    _check_updates(updates, sizes)
    shares = _normalized(prior, len(updates))
    counted = np.flatnonzero(shares)
    if problem := rule.problem(len(counted)):
        raise ValueError(problem)
    known = tuple(roles) or ("unknown",) * len(updates)
    points = Points([updates[int(i)] for i in counted], tuple(sizes), tuple(known[int(i)] for i in counted), seed)
    with threadpool_limits(1, "blas"):  # N x N matrices: waiting for other threads costs more than they save
        combine, chosen = rule.prepare(points, shares[counted])
    everybody = len(counted) == len(updates)
    value, distances = _sweep(
        updates, combine if everybody else lambda columns, block: combine(columns, block[counted]), str(rule)
    )
    if not np.isfinite(distances).all():
        raise not_finite(updates, str(rule))
    weights = np.zeros(len(updates))
    weights[counted] = 0 if chosen is None else chosen
    return Aggregate(value, None if chosen is None else weights, distances)


def _sweep(updates: Sequence[Vector], combine: Combine, name: str) -> tuple[Vector, Doubles]:
    """Combine block by block, and measure each update's distance to the result in the same pass."""
    double = any(update.dtype == np.float64 for update in updates)
    value: Vector = np.empty(len(updates[0]), np.float64 if double else np.float32)

    def visit(columns: slice, block: Doubles) -> Doubles:
        block.flags.writeable = False  # a rule that sorts in place would spoil the distances
        combined = np.asarray(combine(columns, block))
        block.flags.writeable = True
        if combined.shape != block.shape[1:]:
            raise ValueError(f"{name} must return {block.shape[1:]} values for {block.shape}, got {combined.shape}")
        value[columns] = combined
        np.subtract(block, value[columns], out=block)
        return np.asarray(np.einsum("nb,nb->n", block, block), np.float64)

    squared = sum_over_blocks(updates, visit)
    return value, np.sqrt(squared)


def _check_updates(updates: Sequence[Vector], sizes: Sequence[int]) -> None:
    if not len(updates):
        raise ValueError("expected at least one update, got none")
    for i, update in enumerate(updates):
        if update.ndim != 1 or update.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"update {i}: expected a float32 or float64 vector, got {update.dtype} of shape {update.shape}"
            )
        if len(update) != len(updates[0]):
            raise ValueError(f"update {i} has {len(update)} values, but update 0 has {len(updates[0])}")
    if sizes and sum(sizes) != len(updates[0]):
        raise ValueError(f"the tensors have {sum(sizes)} values, but the updates {len(updates[0])}")


def _normalized(prior: npt.ArrayLike, num_clients: int) -> Doubles:
    shares = np.asarray(prior, np.float64)
    if shares.shape != (num_clients,):
        raise ValueError(f"expected one prior weight for each of {num_clients} updates, got shape {shares.shape}")
    if not np.isfinite(shares).all() or (shares < 0).any() or not 0 < shares.sum() < np.inf:
        raise ValueError(f"prior weights must be finite, nonnegative and not all 0, got {shares}")
    return np.asarray(shares / shares.sum(), np.float64)
