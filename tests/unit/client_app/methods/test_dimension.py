"""Local intrinsic dimensionality against plain loops and against data of known dimension."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from client_app.methods.fedcorr import LARGEST_DIMENSION, local_dimensions


def by_loops(points: Tensor, neighbours: int) -> list[float]:
    """The estimate as the formula says it, one point at a time, in Python's own floats."""
    found = []
    rows = points.tolist()
    for i, own in enumerate(rows):
        others = sorted(math.dist(own, other) for j, other in enumerate(rows) if j != i)
        nearest = others[: min(neighbours, len(others))]
        found.append(-len(nearest) / sum(math.log(r / nearest[-1]) for r in nearest))
    return found


@pytest.mark.parametrize(("count", "neighbours"), [(60, 20), (60, 2), (10, 20), (3, 20), (600, 5)])
def test_the_estimate_is_the_formula(count: int, neighbours: int):
    points = torch.softmax(torch.randn(count, 4, generator=torch.Generator().manual_seed(count)), 1)
    np.testing.assert_allclose(local_dimensions(points, neighbours), by_loops(points.double(), neighbours), rtol=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_points_spread_evenly_in_d_directions_have_dimension_d(dimension: int):
    angles = 2 * math.pi * torch.rand(5000, dimension, generator=torch.Generator().manual_seed(dimension))
    found = local_dimensions(torch.cat([angles.cos(), angles.sin()], 1), 20)  # a torus has no border
    # -sum log(r_j / r_k) is a sum of k - 1 exponentials of rate d, so the mean is d k / (k - 2)
    assert found.mean().item() * 18 / 20 == pytest.approx(dimension, rel=0.04)


def test_scale_and_place_do_not_matter():
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(local_dimensions(7 * points + 3), local_dimensions(points), rtol=1e-9, atol=0.0)


def test_points_on_each_other_have_dimension_zero():
    assert local_dimensions(torch.ones(30, 10)).tolist() == [0.0] * 30
    twins = torch.randn(30, 4, generator=torch.Generator().manual_seed(2)).repeat(2, 1)
    assert local_dimensions(twins).tolist() == [0.0] * 60


def test_neighbours_that_are_equally_far_give_the_largest_estimate():
    assert local_dimensions(torch.eye(6)).tolist() == pytest.approx([LARGEST_DIMENSION] * 6)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_points_have_no_dimension(count: int):
    assert local_dimensions(torch.eye(3)[:count]).tolist() == [0.0] * count
