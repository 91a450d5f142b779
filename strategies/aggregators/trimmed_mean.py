"""Coordinate-wise trimmed mean (Yin, Chen, Ramchandran, Bartlett, ICML 2018)."""

from dataclasses import dataclass

import numpy as np

from strategies.aggregators.base import CoordinateWise
from strategies.aggregators.registry import AGGREGATORS
from strategies.aggregators.tolerance import Tolerant
from strategies.gram import Doubles

ROUNDING = 1e-12  # shares below this are rounding: a trimmed value of 1e12 must not leave a trace


@AGGREGATORS.register("trimmed-mean", "Yin, Chen, Ramchandran, Bartlett, ICML 2018")
@dataclass(frozen=True)
class TrimmedMean(Tolerant, CoordinateWise):
    """Mean of each coordinate without its f smallest and f largest values.

    f = 0 is the mean. The largest f that n updates allow is the median; a smaller one loses less of what honest clients
    know. Breakdown: withstands f hostile updates among n >= 2 f + 1; each coordinate then stays within the range of the
    honest clients.

    Parameters
    ----------
    f
        Number of values trimmed at each end of every coordinate, at most (n - 1) / 2; left out, that largest number.
    weighted
        Whether a client counts with its prior: a share f / n of it is trimmed at each end, and what is left weighs
        the mean; hostile clients must then hold no more than that share. False (the paper) counts every client once,
        so that nobody gains influence by reporting more examples. With equal priors both are the same.
    """

    weighted: bool = False

    def combine(self, block: Doubles, prior: Doubles) -> Doubles:
        """Return the trimmed means, (B,), of a block (N, B)."""
        n = len(block)
        f = self.hostile(n)
        if self.weighted:
            return _weighted_trimmed_mean(block, prior, f / n)
        return np.asarray(np.sort(block, axis=0)[f : n - f].mean(axis=0), np.float64)


def _weighted_trimmed_mean(block: Doubles, prior: Doubles, share: float) -> Doubles:
    """Return the means without a share of the prior at each end; a value on the border counts in part."""
    order = np.argsort(block, axis=0)
    below = np.cumsum(prior[order], axis=0) / prior.sum()
    kept = np.diff(np.clip(below, share, 1 - share), axis=0, prepend=share)
    kept[kept < ROUNDING] = 0
    values = np.take_along_axis(block, order, axis=0)
    return np.asarray(np.einsum("nb,nb->b", kept, values) / kept.sum(axis=0), np.float64)
