"""Coordinate-wise aggregators: limit cases, chosen numbers, and what f liars achieve."""

import numpy as np
import pytest

from strategies.aggregators import AGGREGATORS, Aggregator, aggregate
from strategies.aggregators.coordinatewise import MeaMed, Median, TrimmedMean, nearest_to_median_mean
from strategies.gram import Doubles, Vector
from tasks.plugins import PluginError

FAR = [1e12, -1e12, 1e30, 1e140]


def normal(*shape: int) -> Doubles:
    return np.random.default_rng(0).standard_normal(shape)


def column(*values: float) -> list[Vector]:
    return [np.array([value]) for value in values]


def alone(aggregator: Aggregator, values: list[Vector], client_weights: list[float] | None = None) -> float:
    """What the aggregator makes of one coordinate."""
    return float(aggregate(aggregator, values, client_weights or np.ones(len(values))).value[0])


@pytest.mark.parametrize("n", [1, 2, 5, 10])
@pytest.mark.parametrize("aggregator", [TrimmedMean(f=0), MeaMed(f=0)])
def test_nothing_dropped_is_the_plain_mean(n: int, aggregator: Aggregator) -> None:
    matrix = normal(n, 200)
    value = aggregate(aggregator, list(matrix), np.arange(1.0, n + 1)).value
    np.testing.assert_allclose(value, matrix.mean(axis=0), rtol=1e-12, atol=1e-15)


def test_nothing_trimmed_from_weighted_clients_is_the_weighted_mean() -> None:
    matrix, client_weights = normal(7, 200), np.arange(1.0, 8)
    value = aggregate(TrimmedMean(f=0, weighted=True), list(matrix), client_weights).value
    np.testing.assert_allclose(value, np.average(matrix, axis=0, weights=client_weights), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 21])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_trimmed_that_can_be_is_the_median(n: int, weighted: bool) -> None:
    matrix = normal(n, 200)
    for aggregator in (TrimmedMean(weighted=weighted), TrimmedMean((n - 1) // 2, weighted)):
        value = aggregate(aggregator, list(matrix), np.ones(n)).value
        np.testing.assert_allclose(value, np.median(matrix, axis=0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("client_weights", "expected"),
    [
        ([1, 1, 1, 1], 5.0),  # a quarter of the weights at each end is one client: (2 + 8) / 2
        ([2, 2, 2, 2], 5.0),
        ([2, 1, 4, 1], 6.5),  # 8 in all, so 2 go at each end: 1 of 2.0 and 3 of 8.0 are left
        ([1, 3, 2, 2], 5.0),  # 2 of each are left
        ([5, 1, 1, 1], 0.5),  # 3 of 0.0 and 1 of 2.0 are left; 8.0 and 100.0 are the upper end
    ],
)
def test_a_client_on_the_border_counts_in_part(client_weights: list[float], expected: float) -> None:
    assert alone(TrimmedMean(f=1, weighted=True), column(0.0, 2.0, 8.0, 100.0), client_weights) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [1, 0, 4, 3, 2], [4, 3, 2, 1, 0]])
def test_equal_values_of_unequal_clients_are_trimmed_alike_in_any_order(order: list[int]) -> None:
    values, client_weights = column(0.0, 0.0, 3.0, 7.0, 7.0), [4.0, 1.0, 2.0, 1.0, 2.0]
    mixed = alone(TrimmedMean(f=1, weighted=True), [values[i] for i in order], [client_weights[i] for i in order])
    assert mixed == pytest.approx((0.3 * 0 + 0.2 * 3 + 0.1 * 7) / 0.6)


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("aggregator", [TrimmedMean(f=3), TrimmedMean(f=3, weighted=True), MeaMed(f=3)])
@pytest.mark.parametrize("n", [7, 10, 23])
def test_f_liars_leave_the_result_among_the_honest(far: float, aggregator: Aggregator, n: int) -> None:
    honest = normal(n - 3, 100)
    value = aggregate(aggregator, [*honest, *np.full((3, 100), far)], np.ones(n)).value
    assert (value >= honest.min(axis=0) - 1e-12).all()
    assert (value <= honest.max(axis=0) + 1e-12).all()


@pytest.mark.parametrize("aggregator", [TrimmedMean(f=2), MeaMed(f=2)])
def test_one_liar_too_many_decides(aggregator: Aggregator) -> None:
    value = alone(aggregator, column(1.0, 2.0, 3.0, 4.0, 1e12, 1e12, 1e12))
    assert value > 1e11


def test_mea_med_drops_the_far_values_of_one_side() -> None:
    values = column(1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 0.0)
    assert alone(MeaMed(f=2), values) == pytest.approx((0 + 1 + 2 + 3 + 4) / 5)
    assert alone(TrimmedMean(f=2), values) == pytest.approx((2 + 3 + 4) / 3)


def test_mea_med_around_the_median_of_an_even_number() -> None:
    assert alone(MeaMed(f=1), column(0.0, 1.0, 2.0, 9.0)) == pytest.approx(1.0)
    assert alone(MeaMed(f=1), column(0.0, 7.0, 9.0, 10.0)) == pytest.approx(26 / 3)


def test_of_two_values_equally_near_the_smaller_is_kept() -> None:
    assert nearest_to_median_mean(np.array([[3.0], [1.0], [2.0]]), 2) == [1.5]


@pytest.mark.parametrize("name", ["trimmed-mean", "mea-med"])
@pytest.mark.parametrize(("f", "minimum"), [(0, 1), (1, 3), (4, 9)])
def test_2_f_and_one_updates_are_needed(name: str, f: int, minimum: int) -> None:
    aggregator = AGGREGATORS.build(name, f"f = {f}")
    assert aggregator.minimum == minimum
    values = list(normal(minimum, 1))
    assert np.isfinite(alone(aggregator, values))
    if f:
        with pytest.raises(ValueError, match=f"{name} with f = {f} needs .* at least {minimum}"):
            alone(aggregator, values, [0.0] + [1.0] * (minimum - 1))


@pytest.mark.parametrize("name", ["trimmed-mean", "mea-med"])
def test_a_negative_number_of_liars_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match="f = -1: the number of hostile updates must be at least 0"):
        AGGREGATORS.build(name, "f = -1")


@pytest.mark.parametrize("aggregator", [Median(), TrimmedMean(), MeaMed()])
def test_without_arguments_any_number_of_updates_can_be_combined(aggregator: Aggregator) -> None:
    assert aggregator.minimum == 1
    for n in range(1, 8):
        assert np.isfinite(alone(aggregator, list(normal(n, 1))))
