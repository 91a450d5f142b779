"""Largest-variance rules: smallest maximum eigenvalue averaging (SMEA), and the covariance filter CAF.

Hostile updates that move the mean also stretch the updates in one direction. Both rules look for weights of the updates
with which the largest variance over all directions is small: the largest eigenvalue of their covariance matrix (P, P).
Its eigenvalues other than 0 are those of the centred Gram matrix (N, N), so nothing here costs P operations, and the
eigenvalues are exact up to rounding; ByzFL takes one step of the power method from a random start for them.

Sources: SMEA, Allouah, Guerraoui, Gupta, Pinot, Stephan, ICML 2023, https://arxiv.org/abs/2302.04787; CAF, Allouah,
Guerraoui, Stephan, ICML 2025, https://arxiv.org/abs/2505.01874.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice, takewhile

import numpy as np
import numpy.typing as npt

from strategies.aggregators.base import Reweighting, Tolerant, bounded, kept_weights
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles

MOST_SUBSETS = 100_000
"""Most subsets that SMEA looks at: a second for 20 updates, half a minute at most."""
TOGETHER = 2**22  # numbers of the Gram matrices whose eigenvalues are found in one call
RELATIVE = 1e-12  # an eigenvalue below this share of the largest is rounding


@AGGREGATORS.register("smea", "Allouah et al., ICML 2023", "https://arxiv.org/abs/2302.04787")
@dataclass(frozen=True)
class SmallestMaximumEigenvalueAveraging(Tolerant, Reweighting):
    """Mean of the n - f updates whose largest variance over all directions is smallest.

    It has the best constants of all known rules, and it looks at all n choose f subsets: for tens of clients at most.
    The kept updates weigh with their client weights; the variances count every update once. f = 0 is the mean.

    Breakdown: withstands f hostile updates among n >= 2 f + 1, where n choose f is at most 100,000, e.g. 20 clients
    with f = 7 or 100 with f = 2; f left out is the largest number that both allow.
    """

    name = "smea"

    def problem(self, num_updates: int, fact: str = "there are {}") -> str:
        """Return why there are too few updates or too many subsets of them, or an empty string."""
        if problem := super().problem(num_updates, fact):
            return problem
        subsets = math.comb(num_updates, self.hostile(num_updates))
        if subsets <= MOST_SUBSETS:
            return ""
        return (
            f"{self} would have to look at {subsets:.3g} subsets of {num_updates} updates, at most {MOST_SUBSETS:,}: "
            f"take f = {self._affordable(num_updates)} or less, mda, or caf"
        )

    def hostile(self, num_updates: int) -> int:
        """Return the number of hostile updates to withstand among so many."""
        return super().hostile(num_updates) if self.f is not None else self._affordable(num_updates)

    def warning(self, num_updates: int) -> str:
        """Return that fewer hostile updates are withstood than so many allow, or an empty string."""
        return super().warning(num_updates) or bounded(
            self, num_updates, f"it looks at most at {MOST_SUBSETS:,} subsets"
        )

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return the client weights of the kept updates, divided by their sum; 0 for the others."""
        n = len(client_weights)
        found = [
            (float(values.min()), rows[int(values.argmin())]) for rows, values in _variances(gram, self.hostile(n))
        ]
        return kept_weights(min(found, key=lambda one: one[0])[1], client_weights)

    def _affordable(self, num_updates: int) -> int:
        more = range(1, (num_updates - 1) // 2 + 1)  # n choose f rises with f until n / 2
        return sum(1 for _ in takewhile(lambda f: math.comb(num_updates, f) <= MOST_SUBSETS, more))


def _variances(gram: Doubles, f: int) -> Iterator[tuple[npt.NDArray[np.intp], Doubles]]:
    """Yield all subsets of n - f rows, some at a time (S, n - f), and the largest variance in each of them (S,)."""
    kept = len(gram) - f
    subsets = combinations(range(len(gram)), kept)
    while chunk := list(islice(subsets, max(1, TOGETHER // kept**2))):
        rows = np.array(chunk, np.intp)
        part = gram[rows[:, :, None], rows[:, None, :]]
        middle = part.mean(axis=1, keepdims=True)
        centred = part - middle - middle.swapaxes(1, 2) + middle.mean(axis=2, keepdims=True)
        yield rows, np.linalg.eigvalsh(centred)[:, -1] / kept


@AGGREGATORS.register("caf", "Allouah, Guerraoui, Stephan, ICML 2025", "https://arxiv.org/abs/2505.01874")
@dataclass(frozen=True)
class CovarianceFilter(Tolerant, Reweighting):
    """Filter that takes weight from the updates that stretch the rest most, and keeps the least stretched mean.

    The covariance bound-agnostic filter: all weights c start at 1. While their sum is above n - 2 f, each update loses
    the share tau / max tau of its weight, tau its squared distance from the weighted mean along the direction of
    largest variance; so every step removes one update at least. The result is the mean, of all that were met, whose
    largest variance is smallest. It needs no bound on the variance of honest updates, and n steps at most where SMEA
    needs n choose f. Client weights do not matter: c counts clients. f = 0 is the plain mean.

    The maximum is that of the updates that still have weight. ByzFL takes that of all, so an update that is out long
    since, but far away, keeps the others from losing anything, and the loop may never end.

    Breakdown: withstands f hostile updates among n >= 2 f + 1; the error is a few times that of SMEA.
    """

    name = "caf"

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return the weights of the mean with the smallest largest variance."""
        n = len(client_weights)
        left = np.ones(n)
        best, smallest = left / n, math.inf
        while left.sum() > n - 2 * self.hostile(n):
            variance, pulls = largest_variance(gram, left)
            if variance < smallest:
                best, smallest = left / left.sum(), variance
            most = float(pulls[left > 0].max())
            if not most:
                break  # all that is left is equal, or too small for float64 to tell apart
            left = left * np.clip(1 - pulls / most, 0, None)
        return best


def largest_variance(gram: Doubles, weights: Doubles) -> tuple[float, Doubles]:
    """Return the largest variance of weighted updates, and each one's squared distance from the mean along it, (N,).

    With K the Gram matrix of the updates less their mean, and shares s = weights / sum, the covariance matrix has the
    largest eigenvalue l of ``sqrt(s) K sqrt(s)``. If u is its eigenvector there, the direction is
    ``sum_i sqrt(s_i) u_i (x_i - mean) / sqrt(l)``, and the distances along it are ``K sqrt(s) u / sqrt(l)``.
    """
    shares = weights / weights.sum()
    products = gram @ shares
    centred = gram - products - products[:, None] + shares @ products
    roots = np.sqrt(shares)
    values, vectors = np.linalg.eigh(roots[:, None] * centred * roots)
    largest = float(values[-1])
    if largest <= RELATIVE * float(shares @ gram.diagonal()):
        return 0.0, np.zeros(len(gram))
    return largest, np.asarray((centred @ (roots * vectors[:, -1])) ** 2 / largest, np.float64)
