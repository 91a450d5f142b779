"""MDA, SMEA, CAF, MoNNA and ARC against loops over the vectors, and against ByzFL where it does what the papers say.

Where it does not, the paper wins, and a test shows the difference:

- SMEA and CAF: one step of the power method from a random start stands for the largest eigenvalue. That is exact only
  where an update is a single number, so there the two are compared; elsewhere ByzFL's result changes from call to call.
- CAF: the largest distance is that of all updates, also of those that have no weight left; so nothing happens any more
  to the others, and the loop goes on for ever. f = 0 returns None.
- ARC: the number of clipped updates is rounded down from a float, one too few for 242 updates with f = 33; and the
  caller's array is overwritten.
"""

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.aggregation_peers import byzfl_module
from strategies.aggregators import AGGREGATORS, aggregate, build_aggregator
from strategies.gram import Doubles

CASES = [(5, 2, 0), (7, 2, 1), (9, 3, 2), (11, 5, 3), (12, 1, 4), (6, 0, 5)]


def cloud(n: int, seed: int, size: int = 40) -> Doubles:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, size)) * rng.lognormal(0, 0.5, (n, 1)) + 3 * rng.standard_normal(size)


def numbers(n: int, seed: int) -> Doubles:
    return np.random.default_rng(seed).standard_normal((n, 1))


def value(name: str, matrix: Doubles, f: int, weights: npt.ArrayLike = ()) -> Doubles:
    clients = np.ones(len(matrix)) if not np.size(weights) else weights
    return np.asarray(aggregate(AGGREGATORS.build(name, f"f = {f}"), list(matrix), clients).value, np.float64)


def theirs(name: str, matrix: Doubles, *args: int) -> Any:
    return getattr(byzfl_module("aggregators"), name)(*args)(matrix.copy())


def diameter(rows: Doubles) -> float:
    return max((float(np.linalg.norm(a - b)) for a, b in combinations(rows, 2)), default=0.0)


def spread(rows: Doubles) -> float:
    """The largest eigenvalue of the covariance matrix (P, P)."""
    return float(np.linalg.eigvalsh(np.atleast_2d(np.cov(rows.T, bias=True)))[-1])


def loop_caf(matrix: Doubles, f: int, all_updates: bool = False, steps: int = 1000) -> Doubles:
    """The filter in P dimensions, with the eigenvectors of the covariance matrix."""
    left, best, smallest = np.ones(len(matrix)), matrix.mean(0), np.inf
    while left.sum() > len(matrix) - 2 * f and steps:
        steps -= 1
        mean = left @ matrix / left.sum()
        values, vectors = np.linalg.eigh((matrix - mean).T @ np.diag(left / left.sum()) @ (matrix - mean))
        if values[-1] < smallest:
            best, smallest = mean, values[-1]
        far = ((matrix - mean) @ vectors[:, -1]) ** 2
        left = left * np.maximum(0, 1 - far / (far if all_updates else far[left > 0]).max())
    return np.asarray(best)


@pytest.mark.parametrize(("n", "f", "seed"), CASES)
def test_mda_is_the_mean_of_a_subset_of_the_smallest_diameter(n: int, f: int, seed: int) -> None:
    matrix, weights = cloud(n, seed), np.arange(1.0, n + 1)
    subsets = [list(chosen) for chosen in combinations(range(n), n - f)]
    smallest = min(diameter(matrix[chosen]) for chosen in subsets)
    best = [chosen for chosen in subsets if diameter(matrix[chosen]) <= smallest * (1 + 1e-12)]
    chosen = min(best, key=lambda rows: sum(np.linalg.norm(a - b) ** 2 for a, b in combinations(matrix[rows], 2)))
    np.testing.assert_allclose(value("mda", matrix, f), matrix[chosen].mean(0), rtol=1e-12)
    weighted = np.average(matrix[chosen], axis=0, weights=weights[chosen])
    np.testing.assert_allclose(value("mda", matrix, f, weights), weighted, rtol=1e-12)
    if len(best) == 1:
        np.testing.assert_allclose(value("mda", matrix, f), theirs("MDA", matrix, f), rtol=1e-12)


def test_mda_takes_the_tightest_of_the_subsets_with_one_diameter_and_not_the_first() -> None:
    matrix = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.6], [0.0, -0.5]])
    assert diameter(matrix[[0, 1, 2]]) == diameter(matrix[[0, 1, 3]]) == 2.0 < diameter(matrix[2:])
    np.testing.assert_allclose(value("mda", matrix, 1), matrix[[0, 1, 3]].mean(0), rtol=1e-12)
    np.testing.assert_allclose(theirs("MDA", matrix, 1), matrix[[0, 1, 2]].mean(0), rtol=1e-12)


@pytest.mark.parametrize(("n", "f", "seed"), CASES)
def test_smea_is_the_mean_of_the_subset_with_the_smallest_largest_variance(n: int, f: int, seed: int) -> None:
    matrix, weights = cloud(n, seed), np.arange(1.0, n + 1)
    chosen = min((list(rows) for rows in combinations(range(n), n - f)), key=lambda rows: spread(matrix[rows]))
    np.testing.assert_allclose(value("smea", matrix, f), matrix[chosen].mean(0), rtol=1e-12)
    weighted = np.average(matrix[chosen], axis=0, weights=weights[chosen])
    np.testing.assert_allclose(value("smea", matrix, f, weights), weighted, rtol=1e-12)
    line = numbers(n, seed)
    np.testing.assert_allclose(value("smea", line, f), theirs("SMEA", line, f), rtol=1e-9)


@pytest.mark.parametrize(("n", "f", "seed"), CASES)
def test_caf_is_the_filter_of_the_paper(n: int, f: int, seed: int) -> None:
    matrix = cloud(n, seed)
    np.testing.assert_allclose(value("caf", matrix, f), loop_caf(matrix, f), rtol=1e-9)
    np.testing.assert_array_equal(value("caf", matrix, f, np.arange(1.0, n + 1)), value("caf", matrix, f))


@pytest.mark.parametrize("seed", range(4))
def test_caf_differs_from_the_library_in_the_eigenvectors_and_the_maximum_only(seed: int) -> None:
    """In one dimension and with the maximum over all updates the loop above is what ByzFL computes."""
    line = numbers(8, seed)
    np.testing.assert_allclose(loop_caf(line, 1, all_updates=True), theirs("CAF", line, 1), rtol=1e-7)


def test_the_library_does_not_reproduce_itself_and_is_further_from_the_paper() -> None:
    matrix = cloud(11, 3)
    assert np.linalg.norm(theirs("SMEA", matrix, 5) - theirs("SMEA", matrix, 5)) > 1e-3
    assert np.linalg.norm(theirs("CAF", matrix, 5) - theirs("CAF", matrix, 5)) > 1e-3
    for name in ("smea", "caf"):
        np.testing.assert_array_equal(value(name, matrix, 5), value(name, matrix, 5))
    assert theirs("CAF", matrix, 0) is None
    np.testing.assert_allclose(value("caf", matrix, 0), matrix.mean(0), rtol=1e-12)


def test_an_update_without_weight_does_not_keep_the_filter_from_going_on() -> None:
    """One far away is out after one step; then the nearer outliers must go, and they stay if it still counts."""
    rng = np.random.default_rng(0)
    matrix = np.vstack([rng.standard_normal((9, 40)), 20 + rng.standard_normal((2, 40)), np.full((1, 40), 1e5)])
    centre = matrix[:9].mean(0)
    assert np.linalg.norm(value("caf", matrix, 3) - centre) < 3
    assert np.linalg.norm(loop_caf(matrix, 3, all_updates=True) - centre) > 10


@pytest.mark.parametrize(("n", "f", "seed"), CASES)
def test_monna_is_the_mean_of_the_nearest_to_the_trusted_client(n: int, f: int, seed: int) -> None:
    matrix, weights = cloud(n, seed), np.arange(1.0, n + 1)
    for trusted in (0, n - 1):
        monna = AGGREGATORS.build("monna", f"f = {f}, trusted = {trusted}")
        result = aggregate(monna, list(matrix), np.ones(n)).value
        np.testing.assert_allclose(result, theirs("MoNNA", matrix, f, trusted), rtol=1e-12)
        kept = np.argsort(np.linalg.norm(matrix - matrix[trusted], axis=1))[: n - f]
        weighted = np.average(matrix[kept], axis=0, weights=weights[kept])
        np.testing.assert_allclose(aggregate(monna, list(matrix), weights).value, weighted, rtol=1e-12)


@pytest.mark.parametrize(("n", "f", "seed"), CASES)
@pytest.mark.parametrize("after", ["mean", "median", "geometric-median"])
def test_arc_clips_as_the_library_does(n: int, f: int, seed: int, after: str) -> None:
    matrix = cloud(n, seed)
    clipped = byzfl_module("aggregators").ARC(f)(matrix.copy())
    result = aggregate(build_aggregator(after, "", f"arc = {{ f = {f} }}"), list(matrix), np.ones(n))
    expected = aggregate(AGGREGATORS.build(after), list(clipped), np.ones(n))
    np.testing.assert_allclose(result.value, expected.value, rtol=1e-9)


def test_arc_clips_as_many_as_the_paper_says_where_a_float_falls_short() -> None:
    matrix = np.arange(1.0, 243)[:, None]
    assert int((2 * 33 / 242) * (242 - 33)) == 56 != 2 * 33 * (242 - 33) / 242 == 57
    clipped = np.minimum(matrix, 242 - 57)
    result = aggregate(build_aggregator("mean", "", "arc = { f = 33 }"), list(matrix), np.ones(242))
    np.testing.assert_allclose(result.value, clipped.mean(0), rtol=1e-12)
    assert byzfl_module("aggregators").ARC(33)(matrix.copy()).max() == 242 - 56


def test_what_the_library_overwrites_stays_as_it_is() -> None:
    matrix = cloud(7, 1)
    before = matrix.copy()
    aggregate(build_aggregator("mean", "", "arc = { f = 2 }"), list(matrix), np.ones(7))
    np.testing.assert_array_equal(matrix, before)
    byzfl_module("aggregators").ARC(2)(matrix)
    assert not np.array_equal(matrix, before)
