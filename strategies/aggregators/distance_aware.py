"""Distance-aware aggregation: FedNoRo (Wu, Yu, Jiang, Cheng, Yan, IJCAI 2023)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from strategies.aggregators.base import Reweighting
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles, squared_distances
from strategies.points import Points


@AGGREGATORS.register("distance-aware", "FedNoRo; Wu et al., IJCAI 2023")
@dataclass(frozen=True)
class DistanceAware(Reweighting):
    """Weighted mean in which clients with noisy labels count less, the further they are from every clean one.

    With d_i the distance of client i to the nearest clean client (0 for clean clients) and D = d / max d, the weight is
    proportional to ``prior_i exp(-D_i)``. It needs roles: a client of unknown role counts as noisy, and without
    any clean client, or without any other, the result is the mean.

    Breakdown: none tolerated. It is made for wrong labels, not for hostile updates: the smallest factor is 1/e.

    Parameters
    ----------
    distance
        ``tensors``: sum of the tensors' distances, as in the authors' code; ``squared``: squared distance of the whole
        update, as in the FedELC paper (Jiang et al., CIKM 2024).
    """

    distance: Literal["tensors", "squared"] = "tensors"
    robust = False
    needs_clients: ClassVar[bool] = True
    reads_role: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.distance not in ("tensors", "squared"):
            raise ValueError(f"distance must be 'tensors' or 'squared', got {self.distance!r}")

    def weigh(self, points: Points, prior: Doubles) -> Doubles:
        """Return every client's weight from its role and its distance to the nearest clean client."""
        clean = np.array([role == "clean" for role in points.roles])
        if clean.all() or not clean.any():
            return prior
        distances = np.where(clean, 0.0, self._distances(points)[:, clean].min(axis=1))
        weights = prior * np.exp(-distances / (distances.max() or 1.0))
        return np.asarray(weights / weights.sum(), np.float64)

    def weights(self, gram: Doubles, prior: Doubles) -> Doubles:
        """Return the prior: without roles it is the mean."""
        return prior

    def _distances(self, points: Points) -> Doubles:
        if self.distance == "squared":
            return squared_distances(points.gram[:-1, :-1])
        tensors = [np.sqrt(squared_distances(tensor.gram[:-1, :-1])) for _, tensor in points.tensors()]
        return np.asarray(np.sum(tensors, axis=0), np.float64)
