"""Metrics of several sites as one: median, weighted median, or mean weighted by examples.

Each site measures the model on examples of its own and says what it found. A site may lie, and then about any number:
a median moves no further than to another honest site's value as long as honest sites are in the majority (Donoho and
Huber, The notion of breakdown point, 1983), a mean goes wherever one liar wants.

The weighted median lies where half of the weight is on either side (Edgeworth, Phil. Mag. 1888; Gurwitz, Pattern
Recognition Letters 1990). Example counts are what sites claim, so none weighs more than twice the median one.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from strategies.extra_arrays import MOST_WEIGHT
from strategies.validation import Update

Combination = Literal["median", "weighted-median", "mean"]
Doubles = npt.NDArray[np.float64]
ROUNDING = 1e-9  # of a share of the weight: sums of weights are not exact


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the value with half of the weight on either side; the mean of two values if both are such.

    With equal weights it is the median, and with whole numbers the median of each value repeated so often.

    Parameters
    ----------
    values
        Finite numbers, (n,), n at least 1.
    weights
        Positive numbers, (n,).

    >>> weighted_median([0.2, 0.9, 0.4], [1, 1, 1]), weighted_median([0.2, 0.9], [1, 3])
    (0.4, 0.9)
    """
    order = np.argsort(values, kind="stable")
    ordered, shares = np.asarray(values, np.float64)[order], np.asarray(weights, np.float64)[order]
    reached = np.cumsum(shares) / shares.sum()
    low = int(np.argmax(reached >= 0.5 - ROUNDING))
    high = int(np.argmax(reached > 0.5 + ROUNDING))
    return float((ordered[low] + ordered[high]) / 2)


def limited_counts(counts: Sequence[int]) -> Doubles:
    """Return example counts, none above twice the median one, (n,)."""
    known = np.asarray(counts, np.float64)
    limited: Doubles = np.minimum(known, MOST_WEIGHT * np.median(known))
    return limited


def combine_metrics(updates: Sequence[Update[None]], how: Combination) -> dict[str, float]:
    """Return one value of each metric that the sites report; ``updates`` are at least one.

    ``mean`` weighs by the example counts as they are claimed. Of loss and accuracy it is the value over all examples,
    and nothing protects it from a liar.
    """
    counts = [update.examples for update in updates]
    weights = np.ones(len(counts)) if how == "median" else np.asarray(counts, np.float64)
    if how == "weighted-median":
        weights = limited_counts(counts)
    found: dict[str, float] = {}
    for name in updates[0].metrics:
        values = [update.metrics[name] for update in updates]
        mean = how == "mean"
        found[name] = float(np.average(values, weights=weights)) if mean else weighted_median(values, list(weights))
    return found
