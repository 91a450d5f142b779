"""Detectors of noisy clients: the Gaussian mixture of the published codes, and Winnow's own.

``official`` fits a Gaussian mixture over whole profiles, nine times, and lets the fits vote. ``robust`` has one number
a client, two groups on a line, and the question whether there are two at all. Its groups have equal weights and a known
spread, which leaves two numbers to fit, so four clients are enough and nothing can be singular.
"""

import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np

from strategies.detection.base import DETECTORS, Counts, Detection, Detector, Flags, one_group
from strategies.detection.profiles import client_levels, min_max
from strategies.gram import Doubles

STARTS = 9
STEPS = 500
REACH = 1.5  # quartile distances beyond the quartiles (Tukey, 1977)


@dataclass(frozen=True)
class TwoGroups:
    """Means of the lower and the upper group, and the standard deviation within both."""

    lower: float
    upper: float
    spread: float

    def log_likelihood(self, values: Doubles) -> float:
        """Return log p(values) under the mixture."""
        scaled = [-((values - mean) ** 2) / (2 * self.spread**2) for mean in (self.lower, self.upper)]
        constant = np.log(2) + np.log(2 * np.pi * self.spread**2) / 2
        return float(np.sum(np.logaddexp(*scaled) - constant))

    def posterior(self, values: Doubles) -> Doubles:
        """Return each value's probability of belonging to the upper group; it rises with the value."""
        middle = (self.lower + self.upper) / 2
        odds = (self.upper - self.lower) * (values - middle) / self.spread**2
        probabilities: Doubles = (1 + np.tanh(odds / 2)) / 2
        return probabilities

    def widened(self, values: Doubles) -> "TwoGroups":
        """Return the groups with the spread that the values have around their means, if that is larger."""
        upper = self.posterior(values)
        within = np.mean((1 - upper) * (values - self.lower) ** 2 + upper * (values - self.upper) ** 2)
        return TwoGroups(self.lower, self.upper, max(self.spread, float(np.sqrt(within))))


def fit_two(values: Doubles, spread: float) -> TwoGroups:
    """Return the likeliest two groups of known ``spread`` > 0 among ``values`` (N,), N at least 2.

    Expectation-maximisation from nine splits of the sorted values; the order of the values does not matter.
    """
    ordered = np.sort(values)
    cuts = {min(max(round(len(ordered) * i / (STARTS + 1)), 1), len(ordered) - 1) for i in range(1, STARTS + 1)}
    fits = [_climb(ordered, cut, spread) for cut in sorted(cuts)]
    return max(fits, key=lambda fit: fit.log_likelihood(ordered))


def _climb(ordered: Doubles, cut: int, spread: float) -> TwoGroups:
    """Return where expectation-maximisation ends that starts from a split of the sorted values."""
    groups = TwoGroups(float(ordered[:cut].mean()), float(ordered[cut:].mean()), spread)
    for _ in range(STEPS):
        upper = np.clip(groups.posterior(ordered), 1e-12, 1 - 1e-12)
        lower_mean, upper_mean = np.average(ordered, weights=1 - upper), np.average(ordered, weights=upper)
        moved = max(abs(lower_mean - groups.lower), abs(upper_mean - groups.upper))
        groups = TwoGroups(float(lower_mean), float(upper_mean), spread)
        if moved < 1e-9 * spread:
            break
    return groups


def evidence_for_two(values: Doubles, groups: TwoGroups) -> float:
    """Return BIC(one group) - BIC(two groups): positive where two groups are preferred (Schwarz, 1978).

    One group has the same spread and one mean, so two groups have one number more.
    """
    mean = float(values.mean())
    one = TwoGroups(mean, mean, groups.spread).log_likelihood(values)
    return 2 * (groups.log_likelihood(values) - one) - float(np.log(len(values)))


@DETECTORS.register("official", "Wu et al. (FedNoRo), IJCAI 2023", "https://arxiv.org/abs/2305.05230")
@dataclass(frozen=True)
class Official(Detector):
    """Mixture of two Gaussians with full covariance over all classes; it always finds two groups.

    Losses are scaled to [0, 1] class by class and missing ones taken for the lowest. The noisy group is the one whose
    mean profile has the larger sum. Of ``fits`` fits the most frequent set of noisy clients wins, the first on a tie.

    Parameters
    ----------
    fits
        Number of fits; fit i starts from random state i.
    """

    fits: int = 9

    def __post_init__(self) -> None:
        if self.fits < 1:
            raise ValueError(f"fits = {self.fits}: must be at least 1")

    def divide(self, losses: Doubles, counts: Counts) -> Detection:
        """Return the winning set, with the posterior of the first fit that found it; see :class:`Detector`."""
        profiles = min_max(losses, counts)
        found = [_fit(profiles, state) for state in range(self.fits)]
        votes = Counter(noisy.tobytes() for _, noisy in found)
        winner, agreed = votes.most_common(1)[0]
        posterior, noisy = next(fit for fit in found if fit[1].tobytes() == winner)
        return Detection(posterior, noisy, 2, f"{agreed} of {self.fits} mixtures agree")


def _fit(profiles: Doubles, state: int) -> tuple[Doubles, Flags]:
    from sklearn.exceptions import ConvergenceWarning  # a second to import, and most runs never need it
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(n_components=2, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal profiles form one cluster, and that is no news
        mixture.fit(profiles)
    upper = int(np.argmax(mixture.means_.sum(axis=1)))
    return mixture.predict_proba(profiles)[:, upper], np.asarray(mixture.predict(profiles) == upper)


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
