"""The detector of the published codes: a Gaussian mixture over whole profiles, nine times, by vote."""

import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from strategies.detection.base import DETECTORS, Counts, Detection, Detector, Doubles, Flags
from strategies.detection.profiles import min_max


@DETECTORS.register("official", "Wu et al. (FedNoRo), IJCAI 2023")
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
    mixture = GaussianMixture(n_components=2, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal profiles form one cluster, and that is no news
        mixture.fit(profiles)
    upper = int(np.argmax(mixture.means_.sum(axis=1)))
    return mixture.predict_proba(profiles)[:, upper], np.asarray(mixture.predict(profiles) == upper)
