"""Coordinate-wise aggregators: median, trimmed mean, MeaMed; and Bulyan, which ends in one.

Sources: median and trimmed mean (Yin, Chen, Ramchandran, Bartlett, ICML 2018); mean around the median, MeaMed (Xie,
Koyejo, Gupta, "Generalized Byzantine-tolerant SGD", 2018); Bulyan (El Mhamdi, Guerraoui, Rouault, ICML 2018).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from strategies.aggregators.base import Aggregator, Combine, CoordinateWise, Tolerant
from strategies.aggregators.registry import AGGREGATORS
from strategies.aggregators.weighted import select_repeatedly
from strategies.gram import Doubles, UpdateMatrix, squared_distances

ROUNDING = 1e-12  # shares below this are rounding: a trimmed value of 1e12 must not leave a trace


@AGGREGATORS.register("median", "Yin, Chen, Ramchandran, Bartlett, ICML 2018", "https://arxiv.org/abs/1803.01498")
@dataclass(frozen=True)
class Median(CoordinateWise):
    """Median of each coordinate; for an even number of clients the mean of the two middle values.

    Breakdown: each coordinate stays within the range of the honest clients as long as these are more than half of the
    clients or, with ``weighted``, hold more than half of the weights.

    Parameters
    ----------
    weighted
        Whether a client counts with its weight; False counts every client once, so that nobody gains influence by
        reporting more examples. With equal weights both are the same.
    """

    weighted: bool = False

    def combine(self, block: Doubles, client_weights: Doubles) -> Doubles:
        """Return the medians, (B,), of a block (N, B)."""
        return _weighted_median(block, client_weights) if self.weighted else middle(np.sort(block, axis=0))


def middle(ordered: Doubles) -> Doubles:
    """Return the medians, (B,), of values (N, B) that ascend along the first axis."""
    return _midpoint(ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2])


def _weighted_median(block: Doubles, client_weights: Doubles) -> Doubles:
    """Return the midpoint of all values that minimise the weighted sum of absolute deviations."""
    order = np.argsort(block, axis=0)
    ordered = np.take_along_axis(block, order, axis=0)
    below = np.cumsum(client_weights[order], axis=0)
    half = below[-1] / 2
    margin = half * 1e-12  # weights that sum to one half, but for rounding
    lower = np.argmax(below >= half - margin, axis=0)
    upper = np.argmax(below > half + margin, axis=0)
    columns = np.arange(block.shape[1])
    return _midpoint(ordered[lower, columns], ordered[upper, columns])


def _midpoint(lower: Doubles, upper: Doubles) -> Doubles:
    return np.asarray(lower + (upper - lower) / 2, np.float64)


@AGGREGATORS.register("trimmed-mean", "Yin, Chen, Ramchandran, Bartlett, ICML 2018", "https://arxiv.org/abs/1803.01498")
@dataclass(frozen=True)
class TrimmedMean(Tolerant, CoordinateWise):
    """Mean of each coordinate without its f smallest and f largest values.

    f = 0 is the mean. The largest f that n updates allow is the median; a smaller one loses less of what honest clients
    know.

    Breakdown: withstands f hostile updates among n >= 2 f + 1; each coordinate then stays within the range of the
    honest clients.

    Parameters
    ----------
    f
        Number of values trimmed at each end of every coordinate, at most (n - 1) / 2; left out, that largest number.
    weighted
        Whether a client counts with its weight: a share f / n of all weights is trimmed at each end, and what is left
        weighs the mean; hostile clients must then hold no more than that share. False (the paper) counts every client
        once, so that nobody gains influence by reporting more examples. With equal weights both are the same.
    """

    weighted: bool = False

    def combine(self, block: Doubles, client_weights: Doubles) -> Doubles:
        """Return the trimmed means, (B,), of a block (N, B)."""
        n = len(block)
        f = self.hostile(n)
        if self.weighted:
            return _weighted_trimmed_mean(block, client_weights, f / n)
        return np.asarray(np.sort(block, axis=0)[f : n - f].mean(axis=0), np.float64)


def _weighted_trimmed_mean(block: Doubles, client_weights: Doubles, share: float) -> Doubles:
    """Return the means without a share of the weights at each end; a value on the border counts in part."""
    order = np.argsort(block, axis=0)
    below = np.cumsum(client_weights[order], axis=0) / client_weights.sum()
    kept = np.diff(np.clip(below, share, 1 - share), axis=0, prepend=share)
    kept[kept < ROUNDING] = 0
    values = np.take_along_axis(block, order, axis=0)
    return np.asarray(np.einsum("nb,nb->b", kept, values) / kept.sum(axis=0), np.float64)


@AGGREGATORS.register("mea-med", "Xie, Koyejo, Gupta, 2018", "https://arxiv.org/abs/1802.10116")
@dataclass(frozen=True)
class MeaMed(Tolerant, CoordinateWise):
    """Mean of the n - f values of each coordinate that are nearest to its median.

    It drops the f values that lie farthest off, on whichever side they are, where the trimmed mean drops f on both.
    Every client counts once, whatever its weight. f = 0 is the mean.

    Breakdown: withstands f hostile updates among n >= 2 f + 1; the result is then at most as far from the median as the
    farthest honest value.

    Parameters
    ----------
    f
        Number of values dropped in every coordinate, at most (n - 1) / 2; left out, that largest number.
    """

    def combine(self, block: Doubles, client_weights: Doubles) -> Doubles:
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


@AGGREGATORS.register("bulyan", "El Mhamdi, Guerraoui, Rouault, ICML 2018", "https://arxiv.org/abs/1802.07927")
@dataclass(frozen=True)
class Bulyan(Tolerant, Aggregator):
    """Mean of the middle values of each coordinate, among updates that Krum chooses one after the other.

    Krum selects n - 2 f updates, each among those that are left; of their values in a coordinate, the n - 4 f nearest
    to their median are averaged. Where Krum alone lets one coordinate be far off as long as the whole update is near,
    this bounds every coordinate. The client weights do not matter.

    Breakdown: withstands f hostile updates among n >= 4 f + 3.
    """

    per_hostile: ClassVar[int] = 4
    beside: ClassVar[int] = 3

    def prepare(self, matrix: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the combination of the selected updates; no client has one weight for all coordinates."""
        n, f = len(matrix), self.hostile(len(matrix))
        selected = select_repeatedly(squared_distances(matrix.gram[:-1, :-1]), f, n - 2 * f)
        return lambda _, block: nearest_to_median_mean(block[selected], n - 4 * f), None
