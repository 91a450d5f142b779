"""The geometric median of each tensor on its own, as the code of MaskedOptim (Jiang et al., 2025) computes it."""

from dataclasses import dataclass

import numpy as np

from strategies.aggregators.base import Combine, Rule
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles, mixture_distances
from strategies.points import Points


@AGGREGATORS.register("per-tensor-geometric-median", "as in the code of Jiang et al., 2025")
@dataclass(frozen=True)
class PerTensorGeometricMedian(Rule):
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
    """

    iterations: int = 10
    smoothing: float = 1e-5

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.smoothing > 0:
            raise ValueError(
                f"expected iterations of at least 1 and a smoothing above 0, got {self.iterations} and {self.smoothing}"
            )

    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the weighted sums with the weights of each tensor; a client has one weight per tensor."""
        weighted = [(place, self._weights(tensor.gram[:-1, :-1])) for place, tensor in points.tensors()]

        def combine(columns: slice, block: Doubles) -> Doubles:
            combined = np.empty(block.shape[1])
            for place, weights in weighted:
                start, stop = max(place.start, columns.start), min(place.stop, columns.stop)
                if start < stop:
                    inside = slice(start - columns.start, stop - columns.start)
                    combined[inside] = weights @ block[:, inside]
            return combined

        return combine, None

    def _weights(self, gram: Doubles) -> Doubles:
        weights: Doubles = np.full(len(gram), 1 / len(gram))
        for _ in range(self.iterations):
            pulls = 1 / np.maximum(mixture_distances(gram, weights), self.smoothing)
            following = pulls / pulls.sum()
            step = following - weights
            if step @ gram @ step < self.smoothing**2:
                break
            weights = following
        return weights
