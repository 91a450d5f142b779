"""Gaussian mixture detector for more than two groups of clients: one to four of them, as many as BIC prefers.

Where sites make labels in several ways, say by experts, by students and by a program, two groups are one too few: the
middle one goes to whichever side is nearer, and its spread hides the border. As in the detector ``robust``, a client
is one number, its loss beyond what its classes explain. The groups are Gaussians on that line with weights of their
own and one variance, which is never below what chance and clean clients that differ make of a group; so no group
collapses onto one client (Schwarz, Annals of Statistics 1978, for BIC; Dempster, Laird, Rubin, JRSS B 1977, for
expectation-maximisation).

Shapes: N clients, K classes, G groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from strategies.detection.base import DETECTORS, Counts, Detection, Detector, one_group
from strategies.detection.detectors import within_reach
from strategies.detection.profiles import client_levels
from strategies.gram import Doubles

STEPS = 2000
SETTLED = 1e-10  # change of the mean log-likelihood, in nats, below which a fit has ended


@dataclass(frozen=True)
class Mixture:
    """Groups on a line: means (G,), ascending, weights (G,) with sum 1, and the variance within each of them."""

    means: Doubles
    weights: Doubles
    variance: float

    def joint(self, values: Doubles) -> Doubles:
        """Return log p(value, group), (N, G)."""
        scaled = (values[:, None] - self.means) ** 2 / self.variance
        joint: Doubles = np.log(self.weights) - (scaled + np.log(2 * np.pi * self.variance)) / 2
        return joint

    def log_likelihood(self, values: Doubles) -> float:
        """Return log p(values)."""
        return float(np.logaddexp.reduce(self.joint(values), axis=1).sum())

    def posterior(self, values: Doubles) -> Doubles:
        """Return each value's probability of belonging to each group, (N, G)."""
        joint = self.joint(values)
        probabilities: Doubles = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
        return probabilities

    def bic(self, values: Doubles) -> float:
        """Return the Bayesian information criterion, lower is better: G means, G - 1 weights and the variance."""
        return 2 * len(self.means) * float(np.log(len(values))) - 2 * self.log_likelihood(values)

    @property
    def noisy(self) -> Doubles:
        """Which groups count as noisy, (G,) of 0 and 1: those nearer to the highest mean than to the lowest."""
        middle = (self.means[0] + self.means[-1]) / 2
        return np.asarray(self.means > middle, np.float64)


def fit(values: Doubles, groups: int, least: float) -> Mixture:
    """Return the likeliest mixture of so many groups, with a variance of ``least`` at least, among all starts.

    ``values`` are (N,), N at least ``groups``; their order does not matter.
    """
    ordered = np.sort(values)
    fits = [_climb(ordered, labels, groups, least) for labels in _starts(ordered, groups)]
    return max(fits, key=lambda mixture: mixture.log_likelihood(ordered))


def _starts(ordered: Doubles, groups: int) -> Iterator[Counts]:
    """Yield divisions of sorted values (N,) into groups, numbered from 0: at the widest gaps, and into equal parts."""
    cuts = np.sort(np.argsort(-np.diff(ordered), kind="stable")[: groups - 1])
    yield np.searchsorted(cuts, np.arange(len(ordered)), side="left")
    yield np.arange(len(ordered)) * groups // len(ordered)


def _climb(ordered: Doubles, labels: Counts, groups: int, least: float) -> Mixture:
    """Return where expectation-maximisation ends that starts from a division of the values."""
    mixture = _maximise(ordered, np.eye(groups)[labels], least)
    before = -np.inf
    for _ in range(STEPS):
        reached = mixture.log_likelihood(ordered) / len(ordered)
        if reached - before < SETTLED:
            break
        before, mixture = reached, _maximise(ordered, mixture.posterior(ordered), least)
    return mixture


def _maximise(values: Doubles, posterior: Doubles, least: float) -> Mixture:
    """Return the likeliest groups for given probabilities (N, G) of belonging to each."""
    sizes = np.maximum(posterior.sum(axis=0), 1e-9)  # a group that lost everybody stays finite
    means = values @ posterior / sizes
    variance = float(np.sum(posterior * (values[:, None] - means) ** 2) / len(values))
    order = np.argsort(means, kind="stable")
    return Mixture(means[order], (sizes / sizes.sum())[order], max(variance, least))


@DETECTORS.register("groups", "Schwarz, Annals of Statistics 1978 (BIC)", "https://doi.org/10.1214/aos/1176344136")
@dataclass(frozen=True)
class Groups(Detector):
    """One to four groups of clients by their mean loss beyond their classes, as many as BIC prefers.

    Who is noisy, if there is more than one group: the clients of those groups whose mean lies nearer to the highest
    mean than to the lowest; at the same distance, a group is clean. So of three groups with no, few and many wrong
    labels the one in the middle goes to the nearer end, as a whole. A client's posterior is the sum of its
    probabilities over the noisy groups. On average a group holds two clients at least: N clients make at most N / 2.

    Parameters
    ----------
    most
        Largest number of groups, from 1 to 4. With 1 nobody is ever called noisy.
    tolerance
        How far clean clients differ beyond chance, as a share of log K nats, the loss of a model that knows nothing;
        see ``robust``.
    """

    most: int = 4
    tolerance: float = 0.025

    def __post_init__(self) -> None:
        if not 1 <= self.most <= 4:
            raise ValueError(f"most = {self.most}: must be from 1 to 4")
        if not 0 < self.tolerance <= 1:
            raise ValueError(f"tolerance = {self.tolerance}: must be above 0 and at most 1")

    def divide(self, losses: Doubles, counts: Counts) -> Detection:
        """Return who belongs to a noisy group; see :class:`Detector`."""
        natural = self.tolerance * np.log(max(counts.shape[1], 2))
        levels, error = client_levels(within_reach(losses, counts > 0, natural), counts)
        levels = within_reach(levels[:, None], np.ones((len(levels), 1), bool), natural)[:, 0]
        least = float(natural**2 + error**2)
        mixtures = [fit(levels, groups, least) for groups in range(1, min(self.most, len(levels) // 2) + 1)]
        scores = [mixture.bic(levels) for mixture in mixtures]
        best = mixtures[int(np.argmin(scores))]
        reason = _reason(best, levels, scores)
        if len(best.means) == 1:
            return one_group(len(levels), reason)
        posterior = best.posterior(levels) @ best.noisy
        return Detection(np.minimum(posterior, 1.0), posterior > 0.5, len(best.means), reason)


def _reason(mixture: Mixture, levels: Doubles, scores: list[float]) -> str:
    """Return how many groups BIC prefers, and where they lie above the lowest, in words."""
    others = ", ".join(f"{score - min(scores):.1f}" for score in scores)
    said = f"BIC prefers {len(mixture.means)} of {len(scores)} groups (above the best by {others})"
    if len(mixture.means) == 1:
        return said
    nearest = np.bincount(mixture.posterior(levels).argmax(axis=1), minlength=len(mixture.means))
    kinds = [
        f"{count} clients at {mean - mixture.means[0]:.3f} nats {'noisy' if noisy else 'clean'}"
        for count, mean, noisy in zip(nearest, mixture.means, mixture.noisy, strict=True)
    ]
    return f"{said}: {', '.join(kinds)}"
