"""Trimmed mean and mean around the median against SciPy, Flower and plain loops."""

import numpy as np
import pytest
from flwr.serverapp.strategy import FedTrimmedAvg
from flwr.serverapp.strategy.bulyan import aggregate_n_closest_weights
from scipy.stats import trim_mean

from strategies.aggregators import aggregate
from strategies.aggregators.coordinatewise import MeaMed, TrimmedMean, nearest_to_median_mean
from strategies.gram import Doubles
from tests.messages import answer

SIZES = [(1, 0), (2, 0), (3, 1), (10, 2), (11, 5), (20, 3), (100, 20), (101, 49)]


def spread(n: int, size: int = 1001) -> Doubles:
    """Updates with heavy tails and a common part."""
    rng = np.random.default_rng(n)
    return rng.standard_t(2, (n, size)) + rng.standard_normal(size)


@pytest.mark.parametrize(("n", "f"), SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_trimmed_mean_matches_scipy(n: int, f: int, weighted: bool) -> None:
    matrix = spread(n)
    value = aggregate(TrimmedMean(f, weighted), list(matrix), np.ones(n)).value
    np.testing.assert_allclose(value, trim_mean(matrix, (f + 0.5) / n, axis=0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_float32_updates_lose_nothing_but_the_last_rounding(n: int, f: int) -> None:
    matrix = spread(n).astype(np.float32)
    for rule, exact in (
        (TrimmedMean(f), trim_mean(matrix.astype(np.float64), (f + 0.5) / n, axis=0)),
        (MeaMed(f), by_loops(matrix.astype(np.float64), n - f)),
    ):
        value = aggregate(rule, list(matrix), np.ones(n)).value
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, exact, rtol=6.1e-8, atol=1e-15)


@pytest.mark.parametrize(("n", "f"), [(4, 1), (6, 2), (9, 4), (20, 3)])
def test_weighted_trimmed_mean_matches_scipy_on_repeated_clients(n: int, f: int) -> None:
    """A client with a prior of 3 is the same as three equal ones: of 5 n of them, 5 f are trimmed at each end."""
    matrix = spread(n)
    counts = np.random.default_rng(n).multinomial(4 * n, np.full(n, 1 / n)) + 1
    repeated = np.repeat(matrix, counts, axis=0)
    value = aggregate(TrimmedMean(f, weighted=True), list(matrix), counts.astype(np.float64)).value
    expected = trim_mean(repeated, (5 * f + 0.5) / (5 * n), axis=0)
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_mea_med_matches_plain_loops(n: int, f: int) -> None:
    matrix = spread(n, 200)
    value = aggregate(MeaMed(f), list(matrix), np.arange(1.0, n + 1)).value
    np.testing.assert_allclose(value, by_loops(matrix, n - f), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("n", "keep"), [(3, 2), (5, 3), (10, 9), (13, 1), (13, 8), (13, 13), (23, 3), (40, 21)])
def test_the_values_nearest_to_the_median_match_flower(n: int, keep: int) -> None:
    matrix = spread(n)
    (theirs,) = aggregate_n_closest_weights([np.median(matrix, axis=0)], [[row] for row in matrix], keep)
    np.testing.assert_allclose(nearest_to_median_mean(matrix, keep), theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "f"), [(5, 1), (10, 2), (30, 6)])
def test_trimmed_mean_matches_flower(n: int, f: int) -> None:
    matrix = spread(n).astype(np.float32)
    replies = [answer(client, {"w": update}) for client, update in enumerate(matrix)]
    arrays, _ = FedTrimmedAvg(beta=f / n).aggregate_train(1, replies)
    assert arrays is not None
    value = aggregate(TrimmedMean(f), list(matrix), np.ones(n)).value
    np.testing.assert_allclose(value, arrays["w"].numpy(), rtol=1e-5, atol=1e-6)


def by_loops(matrix: Doubles, keep: int) -> Doubles:
    """For each coordinate the mean of the values nearest to the median."""
    means = []
    for values in matrix.T:
        order = np.argsort(np.abs(values - np.median(values)), kind="stable")
        means.append(values[order[:keep]].mean())
    return np.array(means)
