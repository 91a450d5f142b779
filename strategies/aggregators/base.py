"""What an aggregation rule is: N client updates and their prior weights in, one update out.

An update is a client's model minus the global model, one float32 or float64 vector of length P. A rule belongs to one
of two families, and sees only what that family needs:

- :class:`Reweighting` chooses one weight per client from the inner products of the updates;
- :class:`CoordinateWise` combines the values of each coordinate on its own.

Shapes: N clients, P coordinates, B coordinates of one block.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from strategies.gram import Doubles, Vector, gram_matrix, sum_over_blocks

LARGEST = 1e150  # sums of squares of larger values overflow float64
Combine = Callable[[slice, Doubles], Doubles]


@dataclass(frozen=True)
class Aggregate:
    """The combined update ``value`` (P,), in the precision of the updates, and how it relates to each client.

    ``weights`` (N,) are nonnegative and sum to 1, or None where a client has no single weight; ``distances`` (N,) are
    the Euclidean distances of the updates to ``value``.
    """

    value: Vector
    weights: Doubles | None
    distances: Doubles


class Rule(ABC):
    """Any aggregation rule. Derive your own from :class:`Reweighting` or :class:`CoordinateWise`.

    ``robust`` tells whether a minority of hostile updates cannot decide the result; the plain mean is not.
    """

    robust: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, updates: Sequence[Vector], prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return how to combine one block, ``(columns, block (N, B)) -> (B,)``, and the clients' weights if any."""


class Reweighting(Rule):
    """A rule that is a weighted mean, with weights that depend on how the updates lie to each other."""

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

    def weigh(self, updates: Sequence[Vector], prior: Doubles) -> Doubles:
        """Return every client's weight, (N,), from the updates themselves."""
        gram = gram_matrix(updates)
        if not np.isfinite(gram).all():
            raise _not_finite(updates, type(self).__name__)
        return self.weights(gram, prior)

    def prepare(self, updates: Sequence[Vector], prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the weighted sum of a block, and the weights."""
        weights = np.asarray(self.weigh(updates, prior), np.float64)
        if weights.shape != prior.shape or not (weights >= 0).all() or not abs(weights.sum() - 1) < 1e-6:
            raise ValueError(
                f"{type(self).__name__}.weights must return {len(prior)} nonnegative weights with sum 1, got {weights}"
            )
        return lambda _, block: weights @ block, weights


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

    def prepare(self, updates: Sequence[Vector], prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return :meth:`combine`; no client has one weight for all coordinates."""
        return lambda _, block: self.combine(block, prior), None


def aggregate(rule: Rule, updates: Sequence[Vector], prior: npt.ArrayLike) -> Aggregate:
    """Combine client updates into one.

    Parameters
    ----------
    rule
        The aggregation rule.
    updates
        N vectors (P,), float32 or float64: client model minus global model, in a fixed order of the clients.
    prior
        N nonnegative weights, for instance example counts; they are divided by their sum.

    Raises
    ------
    ValueError
        If there is no update, if updates or prior do not fit together, are not finite or above 1e150, or if a rule of
        your own returns something that does not fit.
    """
    _check_updates(updates)
    shares = _normalized(prior, len(updates))
    combine, weights = rule.prepare(updates, shares)
    value, distances = _sweep(updates, combine, type(rule).__name__)
    if not np.isfinite(distances).all():
        raise _not_finite(updates, type(rule).__name__)
    return Aggregate(value, weights, distances)


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


def _check_updates(updates: Sequence[Vector]) -> None:
    if not len(updates):
        raise ValueError("expected at least one update, got none")
    for i, update in enumerate(updates):
        if update.ndim != 1 or update.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"update {i}: expected a float32 or float64 vector, got {update.dtype} of shape {update.shape}"
            )
        if len(update) != len(updates[0]):
            raise ValueError(f"update {i} has {len(update)} values, but update 0 has {len(updates[0])}")


def _normalized(prior: npt.ArrayLike, num_clients: int) -> Doubles:
    shares = np.asarray(prior, np.float64)
    if shares.shape != (num_clients,):
        raise ValueError(f"expected one prior weight for each of {num_clients} updates, got shape {shares.shape}")
    if not np.isfinite(shares).all() or (shares < 0).any() or not 0 < shares.sum() < np.inf:
        raise ValueError(f"prior weights must be finite, nonnegative and not all 0, got {shares}")
    return np.asarray(shares / shares.sum(), np.float64)


def _not_finite(updates: Sequence[Vector], name: str) -> ValueError:
    broken = [i for i, update in enumerate(updates) if not float(np.abs(update).max(initial=0)) < LARGEST]
    if not broken:
        return ValueError(f"{name} returned values that are not finite")
    return ValueError(
        f"updates {broken} have values that are not finite, or above {LARGEST:g}; set them aside before aggregating"
    )
