"""Centered clipping (Karimireddy, He, Jaggi, ICML 2021)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from strategies.aggregators.base import Reweighting
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles, mixture_distances


@AGGREGATORS.register("centered-clipping", "Karimireddy, He, Jaggi, ICML 2021")
@dataclass(frozen=True)
class CenteredClipping(Reweighting):
    """Go from the global model to the mean of the updates, each clipped to a ball around the present point.

    One iteration is ``v <- v + sum_i p_i (x_i - v) min(1, radius / |x_i - v|)``, from v = 0, the global model. So a
    hostile update moves the result by at most its prior times the radius in each iteration.

    Breakdown: withstands hostile clients that are less than half of the clients and hold less than half of the prior;
    the error grows with their share of it and the radius. An infinite radius is the mean.

    Parameters
    ----------
    radius
        Radius of the ball, in the units of the weights; 0 = the median distance of the updates to the present point.
    iterations
        Number of iterations; with a fixed small radius more are needed to come near the updates.
    """

    radius: float = 0.0
    iterations: int = 5
    shrinks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise ValueError(f"radius = {self.radius}: must be at least 0")
        if self.iterations < 1:
            raise ValueError(f"iterations = {self.iterations}: must be at least 1")

    def weights(self, gram: Doubles, prior: Doubles) -> Doubles:
        """Return the updates' weights and, last, that of the global model."""
        weights = np.eye(len(gram))[-1]
        for _ in range(self.iterations):
            distances = mixture_distances(gram, weights)[:-1]
            radius = self.radius or float(np.median(distances))
            steps = prior * np.minimum(1, radius / distances)
            weights = (1 - steps.sum()) * weights + np.append(steps, 0)
        return np.asarray(np.maximum(weights, 0), np.float64)
