"""Krum and Multi-Krum (Blanchard, El Mhamdi, Guerraoui, Stainer, NeurIPS 2017), and their scores.

The score of an update is the sum of its squared distances to its n - f - 2 nearest other updates: small for an update
that has many close neighbours. Ties go to the first client.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from strategies.aggregators.base import Reweighting
from strategies.aggregators.registry import AGGREGATORS
from strategies.aggregators.tolerance import Tolerant
from strategies.gram import Doubles, squared_distances


@AGGREGATORS.register("krum", "Blanchard et al., NeurIPS 2017")
@dataclass(frozen=True)
class Krum(Tolerant, Reweighting):
    """The one update with the smallest sum of squared distances to its n - f - 2 nearest others.

    Breakdown: withstands f hostile updates among n >= 2 f + 3. The result is one client's update, so it learns slowly
    from clients that differ, and the prior does not matter.
    """

    beside: ClassVar[int] = 3

    def weights(self, gram: Doubles, prior: Doubles) -> Doubles:
        """Return 1 for the chosen update, else 0."""
        scores = krum_scores(squared_distances(gram), self.hostile(len(prior)))
        return np.asarray(np.eye(len(prior))[int(scores.argmin())], np.float64)


@AGGREGATORS.register("multi-krum", "Blanchard et al., NeurIPS 2017")
@dataclass(frozen=True)
class MultiKrum(Tolerant, Reweighting):
    """Mean of the m updates with the smallest Krum scores, weighted by the prior.

    Breakdown: withstands f hostile updates among n >= 2 f + 3, with m <= n - f. Where f is left out, m bounds it too.

    Parameters
    ----------
    m
        Number of updates to keep; left out, n - f.
    """

    m: int | None = None
    beside: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m is not None and self.m < 1:
            raise ValueError(f"m = {self.m}: at least one update must be kept")

    @property
    def minimum(self) -> int:
        """Fewest updates: 2 f + 3, and as many as are kept beside the hostile ones."""
        return max(super().minimum, (self.m or 1) + (self.f or 0))

    def hostile(self, num_updates: int) -> int:
        """Return the number of hostile updates to withstand; at least as many are left out."""
        return min(super().hostile(num_updates), num_updates - (self.m or 1))

    def __str__(self) -> str:
        """Return the name, with f and m where they are given."""
        return super().__str__() + ("" if self.m is None else f"{' with' if self.f is None else ','} m = {self.m}")

    def weights(self, gram: Doubles, prior: Doubles) -> Doubles:
        """Return the prior of the kept updates, divided by its sum; 0 for the others."""
        n = len(prior)
        f = self.hostile(n)
        kept = np.argsort(krum_scores(squared_distances(gram), f), kind="stable")[: self.m or n - f]
        weights = np.zeros(n)
        weights[kept] = prior[kept]
        return np.asarray(weights / weights.sum(), np.float64)


def krum_scores(squared: Doubles, f: int) -> Doubles:
    """Return every update's score, (n,), from the squared distances (n, n), with f of the n updates hostile."""
    others = squared + np.diag(np.full(len(squared), np.inf))
    nearest = np.sort(others, axis=1)[:, : max(len(squared) - f - 2, 1)]
    return np.asarray(nearest.sum(axis=1), np.float64)


def select_repeatedly(squared: Doubles, f: int, count: int) -> npt.NDArray[np.int64]:
    """Return ``count`` updates, each chosen by Krum among those not chosen before."""
    left = list(range(len(squared)))
    chosen = []
    for _ in range(count):
        scores = krum_scores(squared[np.ix_(left, left)], f)
        chosen.append(left.pop(int(scores.argmin())))
    return np.array(chosen)
