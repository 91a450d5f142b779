"""Geometric median: RFA (Pillutla, Kakade, Harchaoui, IEEE Transactions on Signal Processing 2022).

The point v that minimises ``f(v) = sum_i p_i |v - x_i|``, with client weights p, lies in the convex hull of the
updates x_i, so v is kept as N weights w, ``v = sum_i w_i x_i``, and every length follows from the Gram matrix. Nothing
here costs P operations.

1. Is an update itself optimal? By the condition of Vardi and Zhang (PNAS 2000), x_k is if the unit pulls of the
   others, ``R_k = sum_i p_i (x_i - x_k) / |x_i - x_k|``, are no longer than the weight p that lies on x_k.
2. Otherwise start at the best update, and leave it along R_k. As f never rises, no update is met again.
3. Weiszfeld's step goes to the mean with weights proportional to ``p_i / |v - x_i|``; RFA smooths it by a bound on
   the distance, which here is only the resolution of the numbers. Newton's step is tried beside it, whole and halved,
   because Weiszfeld's takes thousands of iterations where v lies near an update. The lowest f wins.
4. Stop when the gradient g is short enough: ``f(v) - min f <= |g| |v - v*| <= 2 |g| f(v)``, as f is convex.
5. Where the iterations end while f still falls, v is no median of anything, and the coordinate-wise median takes its
   place, as MaskedOptim's server does it (Jiang et al., 2025); the report of the round says so.

The median of each tensor on its own is there too, as the code of MaskedOptim (Jiang et al., 2025) computes it.
"""

from dataclasses import dataclass

import numpy as np

from strategies.aggregators.base import Aggregator, Combine, Reweighting
from strategies.aggregators.coordinatewise import Median
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import RESOLUTION, TINY, Doubles, UpdateMatrix, mixture_distances, squared_distances

FALLBACK = Median(weighted=True)
RESOLVED = RESOLUTION**0.5  # share of a distance that the numbers resolve
HALVINGS = 0.5 ** np.arange(40)[:, None]


@AGGREGATORS.register(
    "geometric-median", "Pillutla, Kakade, Harchaoui, IEEE TSP 2022", "https://arxiv.org/abs/1912.13445"
)
@dataclass(frozen=True)
class GeometricMedian(Reweighting):
    """Point with the smallest sum of distances to the updates, each times its client weight.

    It counts only the direction in which an outlier lies, not how far away. Where the point is not unique (an even
    number of updates on one line) the result is the mean of the updates that attain the minimum. A client with a weight
    of 0 gets none. N = 1 returns the update, N = 2 the weighted mean: neither can be called the outlier, and the median
    would be the one with the larger client weight in every round, so that nothing is learned from the other client.

    Breakdown: the result stays near the honest updates as long as these hold more than half of the client weights.

    Parameters
    ----------
    tolerance
        Bound on the length of the gradient, which is at most 1. The result's sum of distances exceeds the minimum by
        at most twice this share.
    max_iterations
        Bound on the number of iterations; three to ten are usual. Where it is reached and the last one still lowered
        the sum of distances, the result is the coordinate-wise median, with the client weights. Where only updates
        closer to each other than the numbers resolve keep the gradient from getting so short, it is the last Weiszfeld
        step.
    """

    tolerance: float = 1e-9
    max_iterations: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {self.tolerance}")
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {self.max_iterations}")

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return the weights of the geometric median, (N,): proportional to client weight / distance."""
        return self.solve(gram, client_weights)[0]

    def prepare(self, matrix: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the weighted sum of a block and the weights; or the coordinate-wise median, and a remark."""
        weights, falling = self.solve(matrix.gram[:-1, :-1], client_weights)
        if falling <= max(self.tolerance, RESOLVED):
            return self.combination(weights, client_weights)
        matrix.remarks.append(
            f"{self} did not converge within {self.max_iterations} iterations, its sum of distances still fell by "
            f"{falling:.1g} of itself: the coordinate-wise median took its place"
        )
        return FALLBACK.prepare(matrix, client_weights)

    def solve(self, gram: Doubles, client_weights: Doubles) -> tuple[Doubles, float]:
        """Return the weights (N,), and the share of itself by which f fell in the last iteration; 0 = converged."""
        if np.count_nonzero(client_weights) == 2:
            return client_weights / client_weights.sum(), 0.0
        pairwise = np.sqrt(squared_distances(gram))
        pulls = np.divide(client_weights, pairwise, out=np.zeros_like(pairwise), where=pairwise > 0)
        optimal = client_weights * (_pull_lengths(gram, pulls) <= (pairwise == 0) @ client_weights + self.tolerance)
        if optimal.any():
            return np.asarray(optimal / optimal.sum(), np.float64), 0.0
        objectives: Doubles = np.where(client_weights > 0, pairwise @ client_weights, np.inf)
        best = int(objectives.argmin())
        start = np.eye(len(client_weights))[best]
        away = pulls[best] / pulls[best].sum() - start
        step, _ = _best_step(gram, client_weights, start, pairwise[best], HALVINGS * away)
        return self._descend(gram, client_weights, start + step)

    def _descend(self, gram: Doubles, client_weights: Doubles, weights: Doubles) -> tuple[Doubles, float]:
        target, falling = weights, 0.0
        for _ in range(self.max_iterations):
            distances = mixture_distances(gram, weights)
            pulls = client_weights / distances
            target = pulls / pulls.sum()
            weiszfeld = target - weights
            if pulls.sum() * _length(gram, weiszfeld) <= self.tolerance:
                return target, 0.0
            steps = np.vstack([weiszfeld, HALVINGS * _newton(gram, weights, distances, pulls)])
            step, change = _best_step(gram, client_weights, weights, distances, steps)
            weights, falling = weights + step, -change / float(client_weights @ distances)
        return target, falling


def _pull_lengths(gram: Doubles, pulls: Doubles) -> Doubles:
    """Return |R_k| for every update k, (N,)."""
    coefficients = pulls - np.diag(pulls.sum(axis=1))
    return np.asarray(np.sqrt(np.maximum(np.sum(coefficients @ gram * coefficients, axis=1), 0)), np.float64)


def _length(gram: Doubles, coefficients: Doubles) -> float:
    """Return the length of ``sum_i c_i x_i`` for coefficients with sum 0."""
    return float(np.sqrt(max(float(coefficients @ gram @ coefficients), 0.0)))


def _newton(gram: Doubles, weights: Doubles, distances: Doubles, pulls: Doubles) -> Doubles:
    """Return Newton's step, (N,) with sum 0, or zeros if the Hessian is singular.

    With A the matrix of columns x_i - v and S the sum of the pulls s, the gradient is -A s and the Hessian is
    ``S I - A diag(s / d^2) A^T``; the step A c solves ``(S I - diag(s / d^2) A^T A) c = s``.
    """
    products = gram @ weights
    centred = gram - products - products[:, None] + weights @ products
    matrix = pulls.sum() * np.eye(len(weights)) - (pulls / distances**2)[:, None] * centred
    try:
        coefficients = np.linalg.solve(matrix, pulls)
    except np.linalg.LinAlgError:
        return np.zeros_like(weights)
    return np.asarray(coefficients - coefficients.sum() * weights, np.float64)


def _best_step(
    gram: Doubles, client_weights: Doubles, weights: Doubles, distances: Doubles, steps: Doubles
) -> tuple[Doubles, float]:
    """Return the row of ``steps`` (M, N), each with sum 0, that lowers f most, and by how much f changes.

    The difference of two f is found from differences of squared distances: f itself may be 1e12 times larger.
    """
    products = steps @ gram
    squared_change = 2 * ((products @ weights)[:, None] - products) + np.sum(products * steps, axis=1, keepdims=True)
    moved = np.sqrt(np.maximum(distances**2 + squared_change, 0))
    change = squared_change / np.maximum(distances + moved, TINY) @ client_weights
    best = int(np.nanargmin(change))
    return np.asarray(steps[best], np.float64), float(change[best])


@AGGREGATORS.register(
    "per-tensor-geometric-median", "as in the code of Jiang et al., 2025", "https://arxiv.org/abs/2505.06684"
)
@dataclass(frozen=True)
class PerTensorGeometricMedian(Aggregator):
    """Smoothed Weiszfeld iterations from the mean, for each tensor on its own and without example counts.

    For comparison with published numbers: distances in one tensor say less about a client than those of the whole
    update, a few iterations need not converge, and the step that falls below the threshold is not taken. BatchNorm
    statistics are not part of an update here. :class:`GeometricMedian` is the better choice.

    Breakdown: in each tensor, less than half of the updates being hostile, as far as the iterations get.

    Parameters
    ----------
    iterations
        Largest number of Weiszfeld iterations.
    smoothing
        Distances count as at least this much; a step shorter than it ends the iterations.
    fallback
        Whether a tensor whose iterations end with a longer step takes the coordinate-wise median; False as in the code.
    """

    iterations: int = 10
    smoothing: float = 1e-5
    fallback: bool = False

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.smoothing > 0:
            raise ValueError(
                f"expected iterations of at least 1 and a smoothing above 0, got {self.iterations} and {self.smoothing}"
            )

    def prepare(self, matrix: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the weighted sums with the weights of each tensor; a client has one weight per tensor."""
        found = [(place, self._weights(tensor.gram[:-1, :-1])) for place, tensor in matrix.tensors()]
        if unfinished := sum(weights is None for _, weights in found):
            matrix.remarks.append(
                f"{self} did not converge within {self.iterations} iterations in {unfinished} of {len(found)} tensors: "
                "the coordinate-wise median took its place"
            )

        def combine(columns: slice, block: Doubles) -> Doubles:
            combined = np.empty(block.shape[1])
            for place, weights in found:
                start, stop = max(place.start, columns.start), min(place.stop, columns.stop)
                if start < stop:
                    inside = slice(start - columns.start, stop - columns.start)
                    part = block[:, inside]
                    combined[inside] = Median().combine(part, client_weights) if weights is None else weights @ part
            return combined

        return combine, None

    def _weights(self, gram: Doubles) -> Doubles | None:
        """Return the weights (N,), or None where the iterations did not converge and something else takes over."""
        weights: Doubles = np.full(len(gram), 1 / len(gram))
        for _ in range(self.iterations):
            pulls = 1 / np.maximum(mixture_distances(gram, weights), self.smoothing)
            following = pulls / pulls.sum()
            step = following - weights
            if step @ gram @ step < self.smoothing**2:
                return weights
            weights = following
        return None if self.fallback else weights
