"""Winnow's detector: one number a client, two groups on a line, and the question whether there are two at all."""

from dataclasses import dataclass

import numpy as np

from strategies.detection.base import DETECTORS, Counts, Detection, Detector, Doubles, Flags, one_group
from strategies.detection.mixture import evidence_for_two, fit_two
from strategies.detection.profiles import client_levels

REACH = 1.5  # quartile distances beyond the quartiles (Tukey, 1977)


@DETECTORS.register("robust")
@dataclass(frozen=True)
class Robust(Detector):
    """Two groups of clients by their mean loss beyond their classes, or one group if that explains the losses as well.

    The published detector fits 131 numbers to the profiles of 100 clients with ten classes, and takes a missing class
    for a clean one. Here a client's whole profile becomes one number, its loss beyond what its classes explain
    (:func:`client_levels`), and two means are fitted (:func:`fit_two`). The spread of a group is known beforehand:
    what chance and clean clients that differ make of it. One or two groups is decided by BIC. A grid of rates is no
    mixture of two, but it is wider than one group of clean clients, so it is divided in the middle.

    Parameters
    ----------
    tolerance
        How far clean clients differ beyond chance, as a share of log K nats, the loss of a model that knows nothing.
        Larger: fewer false alarms, and low rates of noise go unseen.
    """

    tolerance: float = 0.025

    def __post_init__(self) -> None:
        if not 0 < self.tolerance <= 1:
            raise ValueError(f"tolerance = {self.tolerance}: must be above 0 and at most 1")

    def divide(self, losses: Doubles, counts: Counts) -> Detection:
        """Return the upper group; see :class:`Detector`."""
        natural = self.tolerance * np.log(max(counts.shape[1], 2))
        levels, error = client_levels(within_reach(losses, counts > 0, natural), counts)
        levels = within_reach(levels[:, None], np.ones((len(levels), 1), bool), natural)[:, 0]
        groups = fit_two(levels, float(np.hypot(natural, error)))
        evidence = evidence_for_two(levels, groups)
        gap = f"gap {groups.upper - groups.lower:.3f} nats, spread {groups.spread:.3f}, BIC"
        if evidence <= 0:
            return one_group(len(levels), f"{gap} prefers one group by {-evidence:.1f}")
        posterior = groups.widened(levels).posterior(levels)
        return Detection(posterior, posterior > 0.5, 2, f"{gap} prefers two groups by {evidence:.1f}")


def within_reach(values: Doubles, present: Flags, least: float) -> Doubles:
    """Return a table (N, C) without outliers, column by column: a liar cannot stretch the scale for all others.

    Values further than ``REACH`` quartile distances from the quartiles are moved there; a quartile distance below
    16 x ``least`` counts as so much, because where most clients are clean the noisy ones lie outside.
    """
    masked = np.where(present, values, np.nan)
    limited = values.copy()
    for column in np.flatnonzero(present.any(axis=0)):
        first, third = np.nanquantile(masked[:, column], [0.25, 0.75])
        reach = REACH * max(third - first, 16 * least)
        limited[:, column] = np.clip(values[:, column], first - reach, third + reach)
    return np.where(present, limited, values)
