"""Ranks of options in each setting, their mean, how well settings agree, and how far the first rank depends on chance.

Means are arrays (options, settings) without NaN, values (options, settings, seeds).

References
----------
Kendall and Babington Smith, Annals of Mathematical Statistics 1939 (W); Demšar, JMLR 2006 (mean ranks over data sets);
Efron, Annals of Statistics 1979 (bootstrap).
"""

import numpy as np
import numpy.typing as npt

from tasks.seeds import rng

Doubles = npt.NDArray[np.float64]

DRAWS = 2000


def ranks(means: Doubles, lower_is_better: bool = False) -> Doubles:
    """Return ranks of the same shape along the first axis: 1 for the best, equals share their mean rank, NaN has none.

    >>> ranks(np.array([[0.5], [0.9], [0.5]])).T
    array([[2.5, 1. , 2.5]])
    """
    scores = np.round(-means if lower_is_better else means, 12)  # equal but for rounding is equal
    found = [1 + (scores > own).sum(0) + ((scores == own).sum(0) - 1) / 2 for own in scores]
    return np.where(np.isnan(scores), np.nan, np.array(found).reshape(scores.shape))


def agreement(setting_ranks: Doubles) -> float | None:
    """Return Kendall's W of ranks (options, settings), with the correction for ties.

    1 if all settings rank the options alike, 0 if their ranks cancel out; None with fewer than two settings or options,
    and where every setting ranks all alike.
    """
    options, settings = setting_ranks.shape
    if options < 2 or settings < 2:
        return None
    spread = float(((setting_ranks.sum(1) - setting_ranks.sum() / options) ** 2).sum())
    ties = 0.0
    for column in setting_ranks.T:
        _, equal = np.unique(column, return_counts=True)
        ties += float((equal.astype(float) ** 3 - equal).sum())
    largest = (settings**2 * (options**3 - options) - settings * ties) / 12
    return spread / largest if largest > 1e-9 else None


def first_shares(values: Doubles, lower_is_better: bool = False, also_settings: bool = False) -> Doubles | None:
    """Return how often each option has the first mean rank when seeds are drawn again with replacement, (options,).

    The same seeds are drawn for all options and settings, because runs of one seed belong together; optionally the
    settings are drawn again too. Equals share. The shares add up to 1; None with fewer than two seeds.
    """
    _, settings, seeds = values.shape
    if seeds < 2:
        return None
    random = rng(0, "sweep", "first-shares")
    drawn = random.integers(seeds, size=(DRAWS, seeds))
    counts = np.stack([np.bincount(line, minlength=seeds) for line in drawn], axis=1) / seeds  # (seeds, draws)
    drawn_ranks = ranks(values @ counts, lower_is_better)  # (options, settings, draws)
    weights = np.full((settings, DRAWS), 1 / settings)
    if also_settings:
        again = random.integers(settings, size=(DRAWS, settings))
        weights = np.stack([np.bincount(line, minlength=settings) for line in again], axis=1) / settings
    means = np.einsum("osd,sd->od", drawn_ranks, weights)
    first = means <= means.min(0) + 1e-9
    shares: Doubles = (first / first.sum(0)).mean(1)
    return shares
