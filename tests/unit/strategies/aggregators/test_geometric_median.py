import numpy as np
import pytest

from strategies.aggregators import (
    Aggregate,
    GeometricMedian,
    Median,
    PerTensorGeometricMedian,
    aggregate,
    build_aggregator,
)
from strategies.aggregators.geometric_median import _newton
from strategies.extra_arrays import limited
from strategies.gram import Doubles, Vector


def points(*rows: tuple[float, ...]) -> list[Vector]:
    return [np.array(row, np.float64) for row in rows]


def weights_of(result: Aggregate) -> Doubles:
    assert result.weights is not None
    return result.weights


def gradient(updates: list[Vector], client_weights: Doubles, value: Vector) -> Doubles:
    """Gradient of the sum of weighted distances, straight from the vectors."""
    shares = client_weights / client_weights.sum()
    offsets = value.astype(np.float64) - np.asarray(updates, np.float64)
    return np.asarray(shares @ (offsets / np.linalg.norm(offsets, axis=1, keepdims=True)), np.float64)


def objective(updates: list[Vector], value: Vector) -> float:
    return float(np.linalg.norm(np.asarray(updates, np.float64) - value, axis=1).mean())


def test_two_equal_clients_meet_half_way() -> None:
    result = aggregate(GeometricMedian(), points((0, 0), (2, 4)), [1, 1])
    np.testing.assert_allclose(result.value, [1, 2], rtol=1e-15)
    np.testing.assert_allclose(weights_of(result), [0.5, 0.5])


def test_of_two_clients_neither_decides_alone() -> None:
    result = aggregate(GeometricMedian(), points((0, 0), (2, 4), (100, 100)), [1, 3, 0])
    np.testing.assert_allclose(result.value, [1.5, 3], rtol=1e-15)
    np.testing.assert_allclose(weights_of(result), [0.25, 0.75, 0])


def test_of_three_clients_the_largest_does_not_decide_alone() -> None:
    apart = points((1, 0, 0), (0, 1, 0), (0, 0, 1))  # updates of different data are nearly at right angles
    weights = weights_of(aggregate(GeometricMedian(), apart, limited(np.array([10.0, 10.0, 1e9]))))
    assert weights.argmax() == 2
    assert weights.min() > 0.1
    alone = weights_of(aggregate(GeometricMedian(), apart, [10, 10, 20]))
    np.testing.assert_array_equal(alone, [0, 0, 1])


def test_equilateral_triangle_has_its_centre() -> None:
    result = aggregate(GeometricMedian(), points((0, 0), (1, 0), (0.5, np.sqrt(0.75))), np.ones(3))
    np.testing.assert_allclose(result.value, [0.5, np.sqrt(0.75) / 3], rtol=1e-8)


def test_convex_quadrilateral_has_the_crossing_of_its_diagonals() -> None:
    result = aggregate(GeometricMedian(), points((0, 0), (3, 1), (4, 4), (0, 2)), np.ones(4))
    # diagonals (0,0)-(4,4) and (3,1)-(0,2): t = 3 - 3 s = 1 + s  =>  s = 1/2, t = 3/2
    np.testing.assert_allclose(result.value, [1.5, 1.5], rtol=1e-8)


@pytest.mark.parametrize(("height", "at_vertex"), [(0.57, True), (0.58, False)])  # 120 degrees: 1/sqrt(3) = 0.5774
def test_triangle_with_an_angle_of_120_degrees_has_its_vertex(height: float, at_vertex: bool) -> None:
    result = aggregate(GeometricMedian(), points((-1, 0), (1, 0), (0, height)), np.ones(3))
    assert np.array_equal(result.value, [0, height]) == at_vertex
    np.testing.assert_allclose(result.value, [0, min(height, 1 / np.sqrt(3))], atol=1e-8)


def test_client_with_half_of_the_weight_decides() -> None:
    updates = [np.random.default_rng(i).standard_normal(6) for i in range(5)]
    result = aggregate(GeometricMedian(), updates, [1, 1, 5, 1, 1])
    np.testing.assert_array_equal(result.value, updates[2])
    np.testing.assert_array_equal(result.weights, [0, 0, 1, 0, 0])


@pytest.mark.parametrize("copies", [3, 4])
def test_duplicates_count_together(copies: int) -> None:
    update = np.random.default_rng(0).standard_normal(9)
    others = [np.random.default_rng(i).standard_normal(9) for i in range(1, 4)]
    result = aggregate(GeometricMedian(), [*others, *[update.copy() for _ in range(copies)]], np.ones(3 + copies))
    np.testing.assert_allclose(result.value, update, rtol=1e-15)
    np.testing.assert_allclose(weights_of(result), [0, 0, 0, *[1 / copies] * copies])


@pytest.mark.parametrize(("values", "expected"), [((5, 1, 2), 2), ((5, 1, 2, 4), 3), ((1, 1, 2, 2), 1.5)])
def test_points_on_a_line_have_their_median(values: tuple[float, ...], expected: float) -> None:
    direction = np.array([3.0, -1.0, 2.0])
    result = aggregate(GeometricMedian(), [value * direction + 7 for value in values], np.ones(len(values)))
    np.testing.assert_allclose(result.value, expected * direction + 7, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("num_clients", "size"), [(3, 40), (10, 2), (10, 500), (100, 3), (100, 500)])
def test_gradient_vanishes_and_weights_are_those_given_over_distance(num_clients: int, size: int, dtype: type) -> None:
    rng = np.random.default_rng(num_clients * size)
    updates: list[Vector] = [rng.standard_normal(size).astype(dtype) for _ in range(num_clients)]
    client_weights = rng.uniform(1, 3, num_clients)
    result = aggregate(GeometricMedian(), updates, client_weights)
    value: Vector = weights_of(result) @ np.asarray(updates, np.float64)
    assert np.linalg.norm(gradient(updates, client_weights, value)) < 1e-8
    expected = client_weights / result.distances
    np.testing.assert_allclose(
        weights_of(result), expected / expected.sum(), rtol=1e-5 if dtype == np.float32 else 1e-7
    )


def test_median_close_to_a_client_converges() -> None:
    """Client 0 pulls with 0.3, the others with 1e-4 more: Weiszfeld's steps alone would need thousands."""
    updates = points((0, 0), (1, 0.3), (-1, 0.3), (1, -0.3), (-1, -0.3), (0.2, 5), (0, 5))
    client_weights = np.array([0.3, 0.1, 0.1, 0.1, 0.1, 0.1501, 0.15])
    result = aggregate(GeometricMedian(), updates, client_weights)
    assert 1e-5 < result.distances[0] < 1e-2
    assert np.linalg.norm(gradient(updates, client_weights, result.value)) < 1e-8


@pytest.mark.parametrize("max_iterations", [1, 2, 3])
def test_stopping_early_gives_a_better_point_than_any_client(max_iterations: int) -> None:
    rng = np.random.default_rng(3)
    updates: list[Vector] = [rng.standard_normal(4) * 10**i for i in range(-2, 6)]
    early = aggregate(GeometricMedian(tolerance=1e-15, max_iterations=max_iterations), updates, np.ones(8))
    full = aggregate(GeometricMedian(), updates, np.ones(8))
    assert objective(updates, full.value) <= objective(updates, early.value)
    assert objective(updates, early.value) < min(objective(updates, update) for update in updates)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_tolerance_bounds_the_sum_of_distances(tolerance: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        updates: list[Vector] = [rng.standard_normal(3) * rng.lognormal(0, 2) for _ in range(7)]
        rough = aggregate(GeometricMedian(tolerance=tolerance), updates, np.ones(7))
        full = aggregate(GeometricMedian(tolerance=1e-12), updates, np.ones(7))
        assert objective(updates, rough.value) <= objective(updates, full.value) / (1 - 2 * tolerance) * (1 + 1e-12)


def test_outliers_of_any_size_leave_the_rest_its_precision() -> None:
    """An outlier counts as a unit pull: 1e12 and 1e100 away give the same median of the rest, to 1e-9 of its spread."""
    rng = np.random.default_rng(5)
    honest: list[Vector] = [rng.standard_normal(200) for _ in range(7)]
    direction = rng.standard_normal(200)
    far, further = (
        aggregate(GeometricMedian(), [*honest, *[scale * direction] * 3], np.ones(10)) for scale in (1e12, 1e100)
    )
    assert np.linalg.norm(far.value - further.value) < 1e-9 * np.linalg.norm(direction)
    offsets = far.value - np.asarray(honest)
    pull = np.sum(offsets / np.linalg.norm(offsets, axis=1, keepdims=True), axis=0)
    np.testing.assert_allclose(pull, 3 * direction / np.linalg.norm(direction), atol=1e-8)


def test_the_spread_of_honest_updates_survives_a_large_common_part() -> None:
    """Updates that agree to 1e-5 of their size, as float32: the median of the rest is found in their differences."""
    rng = np.random.default_rng(6)
    common = rng.standard_normal(3000)
    updates: list[Vector] = [(common + 1e-5 * rng.standard_normal(3000)).astype(np.float32) for _ in range(8)]
    shifted: list[Vector] = [update.astype(np.float64) - updates[0] for update in updates]
    result, alone = (aggregate(GeometricMedian(), group, np.ones(8)) for group in (updates, shifted))
    np.testing.assert_allclose(weights_of(result), weights_of(alone), rtol=1e-9)
    value: Vector = weights_of(result) @ np.asarray(shifted)
    assert np.linalg.norm(gradient(shifted, np.ones(8), value)) < 1e-8


def test_newton_stands_still_where_the_hessian_is_singular() -> None:
    """Between two points of equal weight the sum of distances is constant along the line."""
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    half = np.array([0.5, 0.5])
    np.testing.assert_array_equal(_newton(gram, half, np.ones(2), half), np.zeros(2))


def test_newton_step_solves_the_newton_equation() -> None:
    rng = np.random.default_rng(8)
    points = rng.standard_normal((5, 3))
    weights = rng.dirichlet(np.ones(5))
    offsets = weights @ points - points
    distances = np.linalg.norm(offsets, axis=1)
    pulls = 0.2 / distances
    hessian = pulls.sum() * np.eye(3) - (offsets.T * pulls / distances**2) @ offsets
    step = _newton(points @ points.T, weights, distances, pulls) @ points
    np.testing.assert_allclose(hessian @ step, -pulls @ offsets, rtol=1e-9, atol=1e-12)


def crowd(seed: int = 0, n: int = 9, size: int = 20) -> tuple[list[Vector], Doubles]:
    rng = np.random.default_rng(seed)
    return list(rng.standard_normal((n, size)) * rng.lognormal(0, 1, (n, 1))), rng.dirichlet(np.ones(n))


def test_a_median_that_does_not_converge_is_the_coordinate_wise_one_and_says_so() -> None:
    updates, shares = crowd()
    result = aggregate(GeometricMedian(max_iterations=1), updates, shares)
    np.testing.assert_array_equal(result.value, aggregate(Median(weighted=True), updates, shares).value)
    assert result.weights is None
    (remark,) = result.remarks
    assert remark.startswith("geometric-median did not converge within 1 iterations")
    assert remark.endswith("the coordinate-wise median took its place")
    converged = aggregate(GeometricMedian(), updates, shares)
    assert (converged.remarks, converged.weights is None) == ((), False)
    assert np.linalg.norm(gradient(updates, shares, converged.value)) < 1e-8


def test_the_fallback_also_stands_for_mixtures_of_updates() -> None:
    updates, _ = crowd()
    before = "norm-clipping = { factor = 2.0 }"
    result = aggregate(build_aggregator("geometric-median", "max_iterations = 1", before), updates, np.ones(9))
    expected = aggregate(build_aggregator("median", "weighted = true", before), updates, np.ones(9))
    np.testing.assert_array_equal(result.value, expected.value)
    assert len(result.remarks) == 1


@pytest.mark.parametrize("exponent", [-14, -9, -4])
def test_updates_that_are_too_close_to_resolve_are_no_reason_to_fall_back(exponent: int) -> None:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((4, 6))
    for _ in range(50):
        near = centres[rng.integers(4, size=8)] + 10.0**exponent * rng.standard_normal((8, 6))
        assert aggregate(GeometricMedian(), list(near), np.ones(8)).remarks == ()


def test_a_tensor_falls_back_on_its_own_if_that_is_asked_for() -> None:
    updates, _ = crowd()
    near = [np.concatenate([update, np.full(4, 1e-9 * i)]) for i, update in enumerate(updates)]
    plain, fallen = (
        aggregate(PerTensorGeometricMedian(iterations=2, fallback=fallback), near, np.ones(9), sizes=[20, 4])
        for fallback in (False, True)
    )
    assert plain.remarks == ()
    assert fallen.remarks == (
        "per-tensor-geometric-median did not converge within 2 iterations in 1 of 2 tensors: "
        "the coordinate-wise median took its place",
    )
    np.testing.assert_array_equal(fallen.value[:20], np.median(updates, axis=0))
    np.testing.assert_array_equal(fallen.value[20:], plain.value[20:])
    assert not np.allclose(plain.value[:20], fallen.value[:20])
