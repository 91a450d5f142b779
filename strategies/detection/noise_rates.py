"""Noise-rate detector: a client is noisy if many of its own labels seem wrong, however noisy the others are.

Detectors that compare clients find nobody where all sites are equally noisy: if the same people made all labels, all
losses are alike. Here each client is judged by its own estimate of its share of wrong labels, which is made at the
client (``client_app.loss_profile``). Nothing is relative, so a single client can be judged, and all can be noisy.

A model that is often wrong although it is sure makes every client look noisy. So this needs a model that is right on
most examples by the end of the warm-up.
"""

import math
from dataclasses import dataclass

import numpy as np

from strategies.detection.base import DETECTORS, Counts, Detection, RateDetector
from strategies.gram import Doubles


@DETECTORS.register("noise-rate")
@dataclass(frozen=True)
class NoiseRate(RateDetector):
    """Noisy are the clients that estimate more than a given share of their labels to be wrong.

    The posterior is the probability that the share is above the threshold, if the estimate has a normal error: that of
    a share of half of the client's examples, and the ``tolerance``. All clients may be noisy, or none.

    Parameters
    ----------
    threshold
        Estimated share of wrong labels above which a client is noisy.
    tolerance
        Standard deviation of an estimate beyond chance.
    """

    threshold: float = 0.1
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold = {self.threshold}: must be above 0 and below 1")
        if not 0 < self.tolerance <= 1:
            raise ValueError(f"tolerance = {self.tolerance}: must be above 0 and at most 1")

    def divide(self, losses: Doubles, counts: Counts, rates: Doubles | None = None) -> Detection:
        """Return who is noisy; see :class:`RateDetector`."""
        assert rates is not None, "detect() has seen to it"
        looked_at = np.maximum(counts.sum(axis=1) / 2, 1)
        chance = self.threshold * (1 - self.threshold) / looked_at  # of a client that is just at the threshold
        scores = (rates - self.threshold) / np.sqrt(chance + self.tolerance**2)
        posterior = np.array([(1 + math.erf(score / math.sqrt(2))) / 2 for score in scores])
        noisy = rates > self.threshold
        groups = len(set(noisy.tolist()))
        reason = (
            f"noise rates from {rates.min():.2f} to {rates.max():.2f}, median {np.median(rates):.2f}, "
            f"{np.count_nonzero(noisy)} of {len(rates)} above {self.threshold:g}"
        )
        return Detection(posterior, noisy, groups, reason)
