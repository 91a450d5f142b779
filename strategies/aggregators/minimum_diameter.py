"""Minimum diameter averaging: MDA (El Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, PODC 2020).

The n - f updates whose largest distance to each other is smallest are averaged: the estimator of Rousseeuw
(Mathematical Statistics and Applications B, 1985), for gradients https://arxiv.org/abs/1905.03853.

There are n choose f subsets, but they need not be tried one by one. Draw an edge between two updates that are further
apart than d: a subset of diameter d exists if f updates touch all edges, a *vertex cover*. A cover holds a given update
or else all of its neighbours, so a search branches in two, and each branch leaves fewer of the f updates. The work
grows with f alone, at most about 1.74 to the power f (disjoint triangles); bisection finds the smallest d.

Several subsets may have the smallest diameter, as only one pair of updates decides it. The paper takes any of them;
here it is the one with the smallest sum of squared distances, so that the order of the clients does not matter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from strategies.aggregators.base import Reweighting, Tolerant, bounded, kept_weights
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles, squared_distances

MOST_HOSTILE = 20
"""Largest f whose search ends within a minute, whatever the updates are; usual ones take milliseconds."""


@AGGREGATORS.register("mda", "El Mhamdi et al., PODC 2020", "https://arxiv.org/abs/1905.03853")
@dataclass(frozen=True)
class MinimumDiameterAveraging(Tolerant, Reweighting):
    """Mean of the n - f updates that lie closest together, by the largest distance between two of them.

    The kept updates weigh with their client weights. f = 0 is the mean.

    Breakdown: withstands f hostile updates among n >= 2 f + 1. Finding the subset takes a time that grows exponentially
    with f, so f is at most 20; left out, it is the largest number that both allow.
    """

    name = "mda"

    def problem(self, num_updates: int, fact: str = "there are {}") -> str:
        """Return why so many updates are too few or f too large, or an empty string."""
        if self.f is not None and self.f > MOST_HOSTILE:
            return f"{self} would search for too long: f may be at most {MOST_HOSTILE}; multi-krum has no such bound"
        return super().problem(num_updates, fact)

    def hostile(self, num_updates: int) -> int:
        """Return the number of hostile updates to withstand among so many."""
        return min(super().hostile(num_updates), MOST_HOSTILE)

    def warning(self, num_updates: int) -> str:
        """Return that fewer hostile updates are withstood than so many allow, or an empty string."""
        return super().warning(num_updates) or bounded(self, num_updates, f"f is at most {MOST_HOSTILE}")

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return the client weights of the kept updates, divided by their sum; 0 for the others."""
        squared = squared_distances(gram)
        return kept_weights(smallest_diameter(squared, self.hostile(len(squared))), client_weights)


def smallest_diameter(squared: Doubles, f: int) -> npt.NDArray[np.intp]:
    """Return the n - f rows of squared distances (n, n) that lie closest together, in ascending order."""
    levels = np.unique(squared)  # from 0, the distance of an update to itself
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if next(covers(_neighbours(squared, levels[middle]), f), None) is None:
            low = middle + 1
        else:
            high = middle
    found = {frozenset(_removed(squared, cover, f)) for cover in covers(_neighbours(squared, levels[low]), f)}
    kept = [np.setdiff1d(np.arange(len(squared)), sorted(removed)) for removed in found]
    return min(kept, key=partial(_rank, squared))


def _rank(squared: Doubles, rows: npt.NDArray[np.intp]) -> tuple[float, list[int]]:
    return float(squared[np.ix_(rows, rows)].sum()), rows.tolist()


def _removed(squared: Doubles, cover: int, f: int) -> list[int]:
    """Return f rows to remove: those of the cover, and while these are fewer, the farthest of those that are left."""
    removed = [row for row in range(len(squared)) if cover >> row & 1]
    while len(removed) < f:  # only where distances are equal, or an even smaller subset would do
        left = np.setdiff1d(np.arange(len(squared)), removed)
        removed.append(int(left[squared[np.ix_(left, left)].sum(axis=1).argmax()]))
    return removed


def _neighbours(squared: Doubles, limit: float) -> list[int]:
    """Return which rows are further away than the limit, one integer a row, in which bit j stands for row j."""
    return [int("".join("1" if far else "0" for far in row[::-1]), 2) for row in squared > limit]


def covers(edges: list[int], most: int, cover: int = 0) -> Iterator[int]:
    """Yield the vertex covers, as bits, of at most ``most`` more vertices: all smallest ones, and perhaps others.

    ``edges`` are the neighbours of each vertex, as bits; ``cover`` is what was chosen before.
    """
    degrees = [row.bit_count() for row in edges]
    largest = max(degrees, default=0)
    if not largest:
        yield cover
    elif _can_cover(edges, degrees, most):
        vertex = degrees.index(largest)
        yield from covers(_without(edges, 1 << vertex), most - 1, cover | 1 << vertex)
        if largest <= most:
            yield from covers(_without(edges, edges[vertex]), most - largest, cover | edges[vertex])


def _can_cover(edges: list[int], degrees: list[int], most: int) -> bool:
    """Return False where ``most`` vertices cannot cover all edges: too many edges, or too many without a common end."""
    if sum(sorted(degrees, reverse=True)[:most]) < sum(degrees) // 2:
        return False
    apart, used = 0, 0
    for vertex, row in enumerate(edges):
        free = row & ~used
        if free and not used >> vertex & 1:
            used |= 1 << vertex | free & -free
            apart += 1
    return apart <= most


def _without(edges: list[int], vertices: int) -> list[int]:
    return [0 if vertices >> vertex & 1 else row & ~vertices for vertex, row in enumerate(edges)]
