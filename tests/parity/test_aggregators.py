"""Aggregation rules against NumPy, SciPy, the package geom-median and Flower, each an independent implementation."""

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg, FedMedian, Strategy
from geom_median.numpy import compute_geometric_median
from scipy.optimize import minimize

from strategies.aggregators import GeometricMedian, Mean, Median, aggregate
from strategies.gram import Doubles, Vector
from tests.messages import answer


def random_round(seed: int, num_clients: int, size: int) -> tuple[Doubles, Doubles]:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((num_clients, size)) * rng.lognormal(0, 0.5, (num_clients, 1)) + rng.standard_normal(
        size
    )
    return matrix, rng.integers(1, 20, num_clients).astype(np.float64)


def flower(strategy: Strategy, updates: list[Vector], examples: Doubles) -> Vector:
    replies = [
        answer(client, {"w": update}, num_examples=int(count))
        for client, (update, count) in enumerate(zip(updates, examples, strict=True))
    ]
    arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
    return arrays["w"].numpy()


@pytest.mark.parametrize(("seed", "num_clients", "size"), [(0, 3, 2), (1, 10, 5), (2, 10, 300), (3, 50, 20)])
def test_geometric_median_matches_geom_median(seed: int, num_clients: int, size: int) -> None:
    matrix, client_weights = random_round(seed, num_clients, size)
    ours = aggregate(GeometricMedian(), list(matrix), client_weights)
    theirs = compute_geometric_median(list(matrix), weights=client_weights, eps=1e-12, maxiter=5000, ftol=0)
    np.testing.assert_allclose(ours.value, theirs.median, atol=1e-7)
    np.testing.assert_allclose(np.average(ours.distances, weights=client_weights), theirs.logs[-1], rtol=1e-12)


@pytest.mark.parametrize(("seed", "num_clients", "size"), [(4, 5, 2), (5, 8, 4), (6, 20, 6)])
def test_geometric_median_matches_a_general_minimiser(seed: int, num_clients: int, size: int) -> None:
    matrix, client_weights = random_round(seed, num_clients, size)
    shares = client_weights / client_weights.sum()

    def objective(point: Doubles) -> tuple[float, Doubles]:
        offsets = point - matrix
        lengths = np.linalg.norm(offsets, axis=1)
        return float(shares @ lengths), np.asarray((shares / lengths) @ offsets, np.float64)

    found = minimize(objective, matrix.mean(axis=0), jac=True, method="BFGS", options={"gtol": 1e-9})
    ours = aggregate(GeometricMedian(), list(matrix), client_weights)
    assert shares @ ours.distances <= found.fun * (1 + 1e-12)
    np.testing.assert_allclose(ours.value, found.x, atol=1e-6)


@pytest.mark.parametrize("num_clients", [1, 2, 5, 10, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_median_matches_numpy(num_clients: int, dtype: type) -> None:
    updates: list[Vector] = list(np.random.default_rng(7).standard_normal((num_clients, 4001)).astype(dtype))
    ours = aggregate(Median(), updates, np.ones(num_clients))
    np.testing.assert_allclose(ours.value, np.median(np.asarray(updates, np.float64), axis=0), rtol=2e-7)


@pytest.mark.parametrize("seed", range(5))
def test_weighted_median_matches_the_median_of_repeated_clients(seed: int) -> None:
    matrix, counts = random_round(seed, 6, 50)
    ours = aggregate(Median(weighted=True), list(matrix), counts)
    repeated = np.repeat(matrix, counts.astype(np.int64), axis=0)
    np.testing.assert_allclose(ours.value, np.median(repeated, axis=0), rtol=1e-14)


@pytest.mark.parametrize("num_clients", [2, 10, 100])
def test_mean_matches_extended_precision(num_clients: int) -> None:
    matrix, client_weights = random_round(8, num_clients, 1000)
    ours = aggregate(Mean(), list(matrix), client_weights)
    exact = np.average(matrix.astype(np.longdouble), axis=0, weights=client_weights.astype(np.longdouble))
    np.testing.assert_allclose(ours.value, exact.astype(np.float64), rtol=1e-12, atol=1e-14)


def test_mean_and_median_match_flower() -> None:
    matrix, examples = random_round(9, 10, 500)
    updates: list[Vector] = list(matrix.astype(np.float32))
    mean = flower(FedAvg(), updates, examples)
    np.testing.assert_allclose(aggregate(Mean(), updates, examples).value, mean, rtol=1e-5, atol=1e-6)
    median = flower(FedMedian(), updates, examples)
    np.testing.assert_allclose(aggregate(Median(), updates, examples).value, median, rtol=1e-6)
