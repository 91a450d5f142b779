"""Mean around the median, MeaMed (Xie, Koyejo, Gupta, "Generalized Byzantine-tolerant SGD", 2018)."""

from dataclasses import dataclass

import numpy as np

from strategies.aggregators.base import CoordinateWise
from strategies.aggregators.median import middle
from strategies.aggregators.registry import AGGREGATORS
from strategies.aggregators.tolerance import Tolerant
from strategies.gram import Doubles


@AGGREGATORS.register("mea-med", "Xie, Koyejo, Gupta, 2018")
@dataclass(frozen=True)
class MeaMed(Tolerant, CoordinateWise):
    """Mean of the n - f values of each coordinate that are nearest to its median.

    It drops the f values that lie farthest off, on whichever side they are, where the trimmed mean drops f on both.
    Every client counts once, whatever its prior. f = 0 is the mean. Breakdown: withstands f hostile updates among
    n >= 2 f + 1; the result is then at most as far from the median as the farthest honest value.

    Parameters
    ----------
    f
        Number of values dropped in every coordinate, at most (n - 1) / 2; left out, that largest number.
    """

    def combine(self, block: Doubles, prior: Doubles) -> Doubles:
        """Return the means around the medians, (B,), of a block (N, B)."""
        return nearest_to_median_mean(block, len(block) - self.hostile(len(block)))


def nearest_to_median_mean(block: Doubles, keep: int) -> Doubles:
    """Return the mean of the ``keep`` values of each column of a block (N, B) that are nearest to its median, (B,).

    In sorted order these values are neighbours, so exactly one of the ranks r, r + keep, r + 2 keep, ... is among them.
    Of two values equally near, the smaller one is kept.
    """
    ordered = np.sort(block, axis=0)
    median = middle(ordered)
    kept = ordered[:keep].copy()
    for start in range(keep, len(ordered), keep):
        rivals = ordered[start : start + keep]
        present = kept[: len(rivals)]
        np.copyto(present, rivals, where=rivals - median < median - present)
    return np.asarray(kept.mean(axis=0), np.float64)
