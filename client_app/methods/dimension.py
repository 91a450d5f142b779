"""Local intrinsic dimensionality: in how many directions the points around a point are spread.

The maximum-likelihood estimate of Amsaleg, Chelly, Furon, Girard, Houle, Kawarabayashi and Nett (KDD 2015). Ma et al.
(ICML 2018) found that the outputs of a network that memorises wrong labels spread in more directions.
"""

import torch
from torch import Tensor

LARGEST = 1000.0
"""Largest estimate: it is infinite where all neighbours are equally far."""
ROWS = 512


def local_dimensions(points: Tensor, neighbours: int = 20) -> Tensor:
    """Return the estimate -k / sum_{j=1..k} log(r_j / r_k) at each of ``points`` (n, d), float64 on the CPU, (n,).

    r_1 to r_k are the Euclidean distances to the k nearest other points; k is ``neighbours``, but at most n - 1.
    Points that lie on each other have dimension 0: the estimate goes to 0 with the distance of a neighbour. With fewer
    than three points there is nothing to compare, and the estimate is 0 too.
    """
    everywhere = points.detach().cpu().double()
    k = min(neighbours, len(points) - 1)
    if k < 2:
        return torch.zeros(len(points), dtype=torch.float64)
    rows = torch.split(torch.arange(len(points)), ROWS)
    return torch.cat([_dimensions(_nearest(everywhere, part, k)) for part in rows])


def _nearest(points: Tensor, rows: Tensor, k: int) -> Tensor:
    """Return the distances of some points to their k nearest other points in ascending order, (b, k)."""
    distances = torch.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist")
    distances[torch.arange(len(rows)), rows] = torch.inf
    return distances.topk(k, largest=False).values


def _dimensions(distances: Tensor) -> Tensor:
    k = distances.shape[1]
    farthest = distances[:, -1:]
    logarithms = (distances / farthest.clamp_min(torch.finfo(torch.float64).tiny)).log().sum(1)
    return (k / -logarithms.clamp_max(-k / LARGEST)).masked_fill(farthest[:, 0] == 0, 0.0)
