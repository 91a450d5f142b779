"""Krum, Multi-Krum, Bulyan, centered clipping and the steps before a rule, against plain loops over the vectors."""

import numpy as np
import pytest
from flwr.serverapp.strategy import Krum as FlowerKrum

from strategies.aggregators import (
    Bucketing,
    CenteredClipping,
    Chain,
    DistanceAware,
    GeometricMedian,
    Krum,
    Mean,
    MultiKrum,
    NearestNeighbourMixing,
    NormClipping,
    PerTensorGeometricMedian,
    aggregate,
    build_aggregator,
)
from strategies.gram import Doubles, Vector
from tests.messages import answer

CASES = [(7, 2, 0), (11, 4, 1), (12, 3, 2), (20, 6, 3)]


def cloud(n: int, seed: int, size: int = 40) -> Doubles:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, size)) * rng.lognormal(0, 0.5, (n, 1)) + 3 * rng.standard_normal(size)


def loop_scores(matrix: Doubles, f: int) -> list[float]:
    scores = []
    for i, update in enumerate(matrix):
        others = sorted(float(((update - other) ** 2).sum()) for j, other in enumerate(matrix) if j != i)
        scores.append(sum(others[: max(len(matrix) - f - 2, 1)]))
    return scores


def loop_bulyan(matrix: Doubles, f: int) -> Doubles:
    left, selected = list(matrix), []
    while len(selected) < len(matrix) - 2 * f:
        selected.append(left.pop(int(np.argmin(loop_scores(np.array(left), f)))))
    result = []
    for column in np.array(selected).T:
        nearest = sorted(column, key=lambda value: abs(value - np.median(column)))
        result.append(np.mean(nearest[: len(matrix) - 4 * f]))
    return np.array(result)


@pytest.mark.parametrize(("n", "f", "seed"), CASES)
def test_krum_is_the_update_with_the_lowest_score(n: int, f: int, seed: int) -> None:
    matrix = cloud(n, seed)
    result = aggregate(Krum(f), list(matrix), np.ones(n))
    best = int(np.argmin(loop_scores(matrix, f)))
    np.testing.assert_array_equal(result.value, matrix[best])
    assert result.weights is not None
    assert result.weights[best] == 1


@pytest.mark.parametrize(("n", "f", "seed"), CASES)
@pytest.mark.parametrize("m", [None, 1, 3])
def test_multi_krum_is_the_mean_of_the_lowest_scores(n: int, f: int, seed: int, m: int | None) -> None:
    matrix, client_weights = cloud(n, seed), np.arange(1.0, n + 1)
    kept = np.argsort(loop_scores(matrix, f))[: m or n - f]
    result = aggregate(MultiKrum(f, m), list(matrix), client_weights)
    np.testing.assert_allclose(result.value, np.average(matrix[kept], axis=0, weights=client_weights[kept]), rtol=1e-12)


@pytest.mark.parametrize(("n", "f", "seed"), [(7, 1, 0), (11, 2, 1), (13, 1, 2), (20, 4, 3), (9, 0, 4)])
def test_bulyan_matches_plain_loops(n: int, f: int, seed: int) -> None:
    matrix = cloud(n, seed)
    result = aggregate(build_aggregator("bulyan", f"f = {f}"), list(matrix), np.ones(n))
    np.testing.assert_allclose(result.value, loop_bulyan(matrix, f), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("n", "f", "seed"), CASES)
def test_krum_chooses_as_flower_does(n: int, f: int, seed: int) -> None:
    updates: list[Vector] = list(cloud(n, seed).astype(np.float32))
    replies = [answer(client, {"w": update}, num_examples=10) for client, update in enumerate(updates)]
    arrays, _ = FlowerKrum(num_malicious_nodes=f).aggregate_train(1, replies)
    assert arrays is not None
    np.testing.assert_array_equal(aggregate(Krum(f), updates, np.ones(n)).value, arrays["w"].numpy())


@pytest.mark.parametrize(("n", "f", "seed"), CASES)
def test_mixing_takes_the_means_of_the_nearest(n: int, f: int, seed: int) -> None:
    matrix = cloud(n, seed)
    mixed = []
    for update in matrix:
        order = np.argsort([((update - other) ** 2).sum() for other in matrix])
        mixed.append(matrix[order[: n - f]].mean(axis=0))
    for rule in (Mean(), GeometricMedian(), Krum(f), build_aggregator("median")):
        chained = aggregate(Chain([NearestNeighbourMixing(f)], rule), list(matrix), np.ones(n))
        np.testing.assert_allclose(chained.value, aggregate(rule, mixed, np.ones(n)).value, rtol=1e-6, atol=1e-7)
        if chained.weights is not None:
            np.testing.assert_allclose(chained.weights @ matrix, chained.value, rtol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_bucketing_takes_the_weighted_means_of_groups(size: int) -> None:
    matrix, client_weights = cloud(11, 5), np.arange(1.0, 12)
    order = np.random.default_rng(9).permutation(11)
    groups = [order[start : start + size] for start in range(0, 11, size)]
    means = [np.average(matrix[group], axis=0, weights=client_weights[group]) for group in groups]
    expected = aggregate(build_aggregator("median"), means, [client_weights[group].sum() for group in groups])
    result = aggregate(Chain([Bucketing(size)], build_aggregator("median")), list(matrix), client_weights, seed=9)
    np.testing.assert_allclose(result.value, expected.value, rtol=1e-10)
    average = aggregate(Chain([Bucketing(size)], Mean()), list(matrix), client_weights)
    np.testing.assert_allclose(average.value, np.average(matrix, axis=0, weights=client_weights), rtol=1e-10)


@pytest.mark.parametrize(("limit", "factor"), [(0.0, 1.0), (0.0, 0.5), (4.0, 1.0), (1e9, 1.0)])
def test_norm_clipping_shortens_long_updates(limit: float, factor: float) -> None:
    matrix = cloud(9, 6)
    norms = np.linalg.norm(matrix, axis=1)
    longest = limit or factor * np.median(norms)
    clipped = matrix * np.minimum(1, longest / norms)[:, None]
    result = aggregate(Chain([NormClipping(limit, factor)], Mean()), list(matrix), np.ones(9))
    np.testing.assert_allclose(result.value, clipped.mean(axis=0), rtol=1e-9, atol=1e-12)
    assert result.weights is not None
    np.testing.assert_allclose(result.weights @ matrix, result.value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("radius", [0.0, 0.5, 5.0, 1e9])
@pytest.mark.parametrize("iterations", [1, 4])
def test_centered_clipping_matches_plain_loops(radius: float, iterations: int) -> None:
    matrix, client_weights = cloud(10, 7), np.arange(1.0, 11) / 55
    point = np.zeros(matrix.shape[1])
    for _ in range(iterations):
        lengths = np.linalg.norm(matrix - point, axis=1)
        reach = radius or np.median(lengths)
        point = point + (client_weights * np.minimum(1, reach / lengths)) @ (matrix - point)
    result = aggregate(CenteredClipping(radius, iterations), list(matrix), client_weights)
    np.testing.assert_allclose(result.value, point, rtol=1e-8, atol=1e-10)


def test_per_tensor_geometric_median_matches_the_published_iteration() -> None:
    matrix, sizes = cloud(9, 8), (10, 1, 29)
    expected = []
    for part in np.split(matrix, np.cumsum(sizes)[:-1], axis=1):
        median = part.mean(axis=0)
        for _ in range(10):
            pulls = 1 / np.maximum(np.linalg.norm(part - median, axis=1), 1e-5)
            following = (pulls / pulls.sum()) @ part
            if np.linalg.norm(following - median) < 1e-5:
                break
            median = following
        expected.append(median)
    result = aggregate(PerTensorGeometricMedian(), list(matrix), np.arange(1.0, 10), sizes=sizes)
    np.testing.assert_allclose(result.value, np.concatenate(expected), rtol=1e-9)
    whole = aggregate(PerTensorGeometricMedian(iterations=200, smoothing=1e-9), list(matrix), np.ones(9))
    np.testing.assert_allclose(whole.value, aggregate(GeometricMedian(), list(matrix), np.ones(9)).value, rtol=1e-6)


@pytest.mark.parametrize("distance", ["tensors", "squared"])
def test_distance_aware_weights(distance: str) -> None:
    matrix, sizes = cloud(6, 9), (15, 25)
    roles = ["clean", "noisy", "clean", "noisy", "unknown", "noisy"]
    client_weights = np.array([1, 2, 3, 4, 5, 6]) / 21
    lengths = np.zeros(6)
    for i in (1, 3, 4, 5):
        apart = [np.split(matrix[i] - matrix[j], [15]) for j in (0, 2)]
        if distance == "tensors":
            lengths[i] = min(sum(float(np.linalg.norm(part)) for part in parts) for parts in apart)
        else:
            lengths[i] = min(sum(float((part**2).sum()) for part in parts) for parts in apart)
    expected = client_weights * np.exp(-lengths / lengths.max())
    rule = build_aggregator("distance-aware", f"distance = '{distance}'")
    result = aggregate(rule, list(matrix), client_weights, sizes=sizes, roles=roles)
    np.testing.assert_allclose(result.weights, expected / expected.sum(), rtol=1e-10)


@pytest.mark.parametrize("role", ["clean", "noisy", "unknown"])
def test_distance_aware_without_two_groups_is_the_mean(role: str) -> None:
    matrix = cloud(4, 10)
    result = aggregate(DistanceAware(), list(matrix), [1, 2, 3, 4], roles=[role] * 4)
    np.testing.assert_array_equal(result.weights, np.array([1, 2, 3, 4]) / 10)
