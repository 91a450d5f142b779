import numpy as np
import pytest

from strategies.aggregators import (
    AGGREGATORS,
    CoordinateWise,
    GeometricMedian,
    Mean,
    Median,
    Plain,
    Reweighting,
    build_aggregator,
)
from strategies.aggregators.aggregation import aggregate
from strategies.aggregators.base import Aggregator
from strategies.gram import Doubles, Vector
from tasks.plugins import PluginError

RULES = [entry.name for entry in AGGREGATORS.entries()]


def updates_of(num_clients: int, size: int, seed: int = 0, dtype: type = np.float32) -> list[Vector]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(dtype) for _ in range(num_clients)]


def clipped_mean(updates: Vector, client_weights: Doubles, norm: float = 1.0) -> Doubles:
    lengths = np.linalg.norm(updates, axis=1)
    return np.asarray((client_weights * np.minimum(1, norm / lengths)) @ updates, np.float64)


class FirstOnly(Reweighting):
    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        return np.eye(1, len(client_weights)).ravel()


class Constant(Reweighting):
    def __init__(self, value: float) -> None:
        self.value = value

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        return np.full(len(client_weights), self.value)


class SortsInPlace(CoordinateWise):
    def combine(self, block: Doubles, client_weights: Doubles) -> Doubles:
        block.sort(axis=0)
        return np.asarray(block[0])


class TooShort(CoordinateWise):
    def combine(self, block: Doubles, client_weights: Doubles) -> Doubles:
        return np.asarray(block[0, :-1])


def only_updates(updates: Vector) -> Doubles:
    return np.asarray(updates[0], np.float64)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_update_is_its_own_aggregate(name: str, dtype: type) -> None:
    (update,) = updates_of(1, 7, dtype=dtype)
    aggregator = AGGREGATORS.build(name)
    if aggregator.minimum > 1:
        with pytest.raises(ValueError, match=f"{name} needs .* at least {aggregator.minimum} clients, there are 1"):
            aggregate(aggregator, [update], [3.0])
        return
    result = aggregate(aggregator, [update], [3.0])
    assert result.value.dtype == dtype
    np.testing.assert_allclose(result.value, update, rtol=1e-6)
    np.testing.assert_allclose(result.distances, [0.0], atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_equal_updates_are_their_own_aggregate(name: str) -> None:
    update = updates_of(1, 50)[0]
    result = aggregate(AGGREGATORS.build(name), [update] * 5, np.ones(5))
    np.testing.assert_allclose(result.value, update, rtol=1e-6)
    np.testing.assert_allclose(result.distances, np.zeros(5), atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_distances_are_those_to_the_value(name: str) -> None:
    updates = updates_of(6, 40)
    result = aggregate(AGGREGATORS.build(name), updates, [1, 2, 3, 1, 2, 3])
    expected = [np.linalg.norm(update.astype(np.float64) - result.value) for update in updates]
    np.testing.assert_allclose(result.distances, expected, rtol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_blocks_do_not_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = updates_of(5, 103, dtype=np.float64)
    whole = aggregate(AGGREGATORS.build(name), updates, np.ones(5))
    monkeypatch.setattr("strategies.gram.BLOCK", 50)
    in_blocks = aggregate(AGGREGATORS.build(name), updates, np.ones(5))
    np.testing.assert_allclose(in_blocks.value, whole.value, rtol=1e-12)
    np.testing.assert_allclose(in_blocks.distances, whole.distances, rtol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_updates_are_left_alone_and_runs_repeat_bit_for_bit(name: str) -> None:
    updates = updates_of(9, 5000)
    copies = [update.copy() for update in updates]
    first, second = (aggregate(AGGREGATORS.build(name), updates, np.arange(1.0, 10)) for _ in range(2))
    np.testing.assert_array_equal(first.value, second.value)
    np.testing.assert_array_equal(first.distances, second.distances)
    np.testing.assert_array_equal(updates, copies)


@pytest.mark.parametrize("name", RULES)
def test_client_without_weight_changes_nothing(name: str) -> None:
    updates = updates_of(5, 20)
    hostile = np.full(20, 1e12, np.float32)
    without = aggregate(AGGREGATORS.build(name), updates, np.ones(5))
    with_one = aggregate(AGGREGATORS.build(name), [*updates, hostile], [1, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(with_one.value, without.value, rtol=1e-6)
    assert with_one.weights is None or with_one.weights[5] == 0
    np.testing.assert_allclose(with_one.distances[5], 1e12 * np.sqrt(20), rtol=1e-6)


def test_mean_weights_are_the_normalized_client_weights() -> None:
    updates = updates_of(3, 4)
    result = aggregate(Mean(), updates, [1, 2, 5])
    assert result.weights is not None
    np.testing.assert_array_equal(result.weights, [0.125, 0.25, 0.625])
    np.testing.assert_allclose(result.value, np.average(updates, axis=0, weights=[1, 2, 5]), rtol=1e-6)


def test_without_roles_ids_and_seed_all_are_unknown_and_numbered_and_the_seed_is_0() -> None:
    updates = updates_of(5, 4, dtype=np.float64)
    for name, args, given in (
        ("distance-aware", "", {"roles": ["unknown"] * 5}),
        ("monna", "trusted = 3, f = 1", {"clients": range(5)}),
    ):
        rule = AGGREGATORS.build(name, args)
        found, said = aggregate(rule, updates, np.ones(5)), aggregate(rule, updates, np.ones(5), **given)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.value, said.value)
    drawn = build_aggregator("median", "", "bucketing = {}")
    found = [aggregate(drawn, updates, np.ones(5), **given).value.tolist() for given in ({}, {"seed": 0}, {"seed": 1})]
    assert found[0] == found[1] != found[2]


def test_mean_leaves_the_gram_matrix_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(updates: list[Vector]) -> Doubles:
        raise AssertionError("computed")

    monkeypatch.setattr("strategies.gram.gram_matrix", fail)
    assert aggregate(Mean(), updates_of(2, 3), [1, 1]).weights is not None
    with pytest.raises(AssertionError, match="computed"):
        aggregate(GeometricMedian(), updates_of(2, 3), [1, 1])


@pytest.mark.parametrize("client_weights", [[1, 1, 1, 1], [1, 1, 1, 7]])
def test_median_of_an_even_number_is_the_mean_of_the_middle_two(client_weights: list[float]) -> None:
    updates = [np.array([value], np.float32) for value in (4.0, 1.0, 100.0, 3.0)]
    assert aggregate(Median(), updates, client_weights).value == [3.5]


@pytest.mark.parametrize(
    ("client_weights", "expected"),
    [
        ([1, 1, 1, 1], 3.5),  # equal weights: the ordinary median
        ([1, 1, 1, 7], 3.0),  # 3.0 holds more than half
        ([1, 2, 0, 1], 2.0),  # 1.0 holds exactly half: midpoint to 3.0
        ([0.1, 0.2, 0.3, 0.0], 52.0),  # half by shares that binary fractions cannot hold: midpoint of 4 and 100
    ],
)
def test_weighted_median(client_weights: list[float], expected: float) -> None:
    updates = [np.array([value]) for value in (4.0, 1.0, 100.0, 3.0)]
    assert aggregate(Median(weighted=True), updates, client_weights).value == [expected]


def test_empty_updates_have_an_empty_aggregate() -> None:
    result = aggregate(GeometricMedian(), [np.empty(0, np.float32)] * 3, np.ones(3))
    assert result.value.shape == (0,)
    np.testing.assert_array_equal(result.distances, np.zeros(3))


def test_mixed_precision_gives_double_precision() -> None:
    result = aggregate(Mean(), [np.ones(3, np.float32), np.full(3, 1 + 1e-12)], [1, 1])
    np.testing.assert_allclose(result.value, 1 + 5e-13, rtol=1e-15)


@pytest.mark.parametrize(
    ("updates", "client_weights", "message"),
    [
        ([], [], "at least one update"),
        ([np.ones(2), np.ones(3)], [1, 1], "update 1 has 3 values, but update 0 has 2"),
        ([np.ones(2, np.int64)], [1], "update 0: expected a float32 or float64 vector, got int64"),
        ([np.ones(2, np.float16)], [1], "got float16"),
        ([np.ones((2, 2))], [1], r"shape \(2, 2\)"),
        ([np.ones(2)], [1, 1], r"got shape \(2,\)"),
        ([np.ones(2)], [-1], "nonnegative"),
        ([np.ones(2)], [0], "not all 0"),
        ([np.ones(2)], [np.nan], "finite"),
        ([np.ones(2)], [np.inf], "finite"),
        ([np.ones(2)] * 2, [1e308, 1e308], "finite"),  # their sum is not
    ],
)
def test_input_that_does_not_fit_is_named(updates: list[Vector], client_weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aggregate(Mean(), updates, client_weights)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    updates = updates_of(3, 8)
    updates[1][4] = bad
    with pytest.raises(ValueError, match=r"updates \[1\] have values that are not finite"):
        aggregate(AGGREGATORS.build(name), updates, np.ones(3))


@pytest.mark.parametrize("name", RULES)
def test_values_too_large_to_square_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"updates \[1\] have values .* above 1e\+150"):
        aggregate(AGGREGATORS.build(name), [np.ones(3), np.full(3, 1e200), np.zeros(3)], [1, 1, 1])


def test_result_of_a_users_aggregator_must_be_finite() -> None:
    with pytest.raises(ValueError, match="<lambda> returned values that are not finite"):
        aggregate(Plain(lambda updates, client_weights: updates[0] * np.inf), updates_of(2, 3), [1, 1])


@pytest.mark.parametrize("value", [1.0, -0.5, np.nan])
def test_weights_of_a_users_aggregator_are_checked(value: float) -> None:
    with pytest.raises(ValueError, match=r"Constant.weights must return 2 nonnegative weights with sum 1"):
        aggregate(Constant(value), updates_of(2, 3), [1, 1])


def test_shape_of_a_users_aggregator_is_checked() -> None:
    with pytest.raises(ValueError, match=r"too-short must return \(3,\) values"):
        aggregate(TooShort(), updates_of(2, 3), [1, 1])
    with pytest.raises(ValueError, match=r"must return \(3,\) values, got \(\)"):
        aggregate(Plain(lambda updates, client_weights: updates.sum()), updates_of(2, 3), [1, 1])


def test_blocks_are_read_only_for_a_users_aggregator() -> None:
    with pytest.raises(ValueError, match="read-only"):
        aggregate(SortsInPlace(), updates_of(2, 3), [1, 1])


def test_built_in_aggregators_are_listed_with_their_papers() -> None:
    assert {"mean", "geometric-median", "median", "krum", "bulyan", "trimmed-mean", "mea-med"} <= set(RULES)
    assert all(entry.paper and entry.summary for entry in AGGREGATORS.entries())
    assert AGGREGATORS.build("geometric-median", "tolerance = 1e-4") == GeometricMedian(tolerance=1e-4)
    assert AGGREGATORS.build("median", "weighted = true") == Median(weighted=True)


def test_class_by_import_path() -> None:
    aggregator = AGGREGATORS.build(f"{__name__}:FirstOnly")
    updates = updates_of(3, 4)
    np.testing.assert_array_equal(aggregate(aggregator, updates, np.ones(3)).value, updates[0])


@pytest.mark.parametrize(("args", "norm"), [("", 1.0), ("norm = 0.25", 0.25)])
def test_function_by_import_path(args: str, norm: float) -> None:
    aggregator: Aggregator = AGGREGATORS.build(f"{__name__}:clipped_mean", args)
    updates = updates_of(4, 30)
    result = aggregate(aggregator, updates, np.ones(4))
    expected = np.mean([update * norm / np.linalg.norm(update) for update in updates], axis=0)
    np.testing.assert_allclose(result.value, expected, rtol=1e-5)
    assert result.weights is None


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (f"{__name__}:clipped_mean", "nrom = 1", "its arguments: norm"),
        (
            f"{__name__}:only_updates",
            "",
            r"subclass of Reweighting or CoordinateWise, or a function \(updates, client_weights\)",
        ),
        ("collections:OrderedDict", "", "got <class 'collections.OrderedDict'>"),
        ("geometric-medain", "", "did you mean 'geometric-median'"),
        ("geometric-median", "tolerance = 0", "tolerance must lie between 0 and 1, got 0"),
        ("geometric-median", "max_iterations = 0", "at least 1, got 0"),
    ],
)
def test_choice_that_does_not_fit_is_named(name: str, args: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        AGGREGATORS.build(name, args)


def test_a_weighted_trimmed_mean_counts_shares_whatever_the_weights_sum_up_to() -> None:
    block, weights = np.random.default_rng(0).standard_normal((7, 5)), np.arange(1.0, 8.0)
    rule = build_aggregator("trimmed-mean", "f = 2, weighted = true", "")
    assert isinstance(rule, CoordinateWise)
    np.testing.assert_allclose(rule.combine(block, weights), rule.combine(block, weights / weights.sum()), rtol=1e-12)


@pytest.mark.parametrize("step", ["norm-clipping = {}", "arc = { f = 1 }"])
def test_steps_that_only_shorten_updates_go_before_rules_that_need_each_client(step: str) -> None:
    assert build_aggregator("monna", "f = 1", step) is not None
    with pytest.raises(PluginError, match="needs the update of every client on its own"):
        build_aggregator("monna", "f = 1", "nnm = { f = 1 }")
