"""Coordinate-wise median (Yin, Chen, Ramchandran, Bartlett, ICML 2018)."""

from dataclasses import dataclass

import numpy as np

from strategies.aggregators.base import CoordinateWise
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles


@AGGREGATORS.register("median", "Yin, Chen, Ramchandran, Bartlett, ICML 2018")
@dataclass(frozen=True)
class Median(CoordinateWise):
    """Median of each coordinate; for an even number of clients the mean of the two middle values.

    Breakdown: each coordinate stays within the range of the honest clients as long as these are more than half, of the
    clients or, with ``weighted``, of the prior.

    Parameters
    ----------
    weighted
        Whether a client counts with its prior; False counts every client once, so that nobody gains influence by
        reporting more examples. With equal priors both are the same.
    """

    weighted: bool = False

    def combine(self, block: Doubles, prior: Doubles) -> Doubles:
        """Return the medians, (B,), of a block (N, B)."""
        return _weighted_median(block, prior) if self.weighted else middle(np.sort(block, axis=0))


def middle(ordered: Doubles) -> Doubles:
    """Return the medians, (B,), of values (N, B) that ascend along the first axis."""
    return _midpoint(ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2])


def _weighted_median(block: Doubles, prior: Doubles) -> Doubles:
    """Return the midpoint of all values that minimise the weighted sum of absolute deviations."""
    order = np.argsort(block, axis=0)
    ordered = np.take_along_axis(block, order, axis=0)
    below = np.cumsum(prior[order], axis=0)
    half = below[-1] / 2
    margin = half * 1e-12  # weights that sum to one half, but for rounding
    lower = np.argmax(below >= half - margin, axis=0)
    upper = np.argmax(below > half + margin, axis=0)
    columns = np.arange(block.shape[1])
    return _midpoint(ordered[lower, columns], ordered[upper, columns])


def _midpoint(lower: Doubles, upper: Doubles) -> Doubles:
    return np.asarray(lower + (upper - lower) / 2, np.float64)
