from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from strategies.aggregators import AGGREGATORS, GeometricMedian, Median, aggregate, build_aggregator
from strategies.gram import Doubles, Vector

RULES = [
    ("mean", ""),
    ("geometric-median", ""),
    ("median", ""),
    ("median", "weighted = true"),
    ("mea-med", "f = 0"),
    ("mda", "f = 0"),
    ("smea", "f = 0"),
]
CHOOSING = ["krum", "multi-krum", "bulyan", "trimmed-mean", "mea-med", "mda", "smea", "caf", "monna"]


@dataclass(frozen=True)
class Round:
    """Random updates (N, P) of different sizes, some of them equal, with random priors."""

    matrix: Doubles
    client_weights: Doubles
    seed: int

    @property
    def updates(self) -> list[Vector]:
        return list(self.matrix)

    @property
    def spread(self) -> float:
        return float(np.abs(self.matrix - self.matrix[0]).max())

    @property
    def rounding(self) -> float:
        return 1e-14 * float(np.abs(self.matrix).max())


@st.composite
def rounds(draw: st.DrawFn) -> Round:
    seed = draw(st.integers(0, 2**32 - 1))
    num_clients = draw(st.integers(1, 12))
    size = draw(st.integers(1, 30))
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((num_clients, size)) * rng.lognormal(0, 1, (num_clients, 1))
    if draw(st.booleans()):
        matrix = matrix[rng.integers(num_clients, size=num_clients)]
    client_weights = (
        rng.dirichlet(np.ones(num_clients)) if draw(st.booleans()) else np.full(num_clients, 1 / num_clients)
    )
    return Round(matrix, client_weights, seed)


def value_of(rule: tuple[str, str], matrix: Doubles, client_weights: Doubles) -> Vector:
    return aggregate(AGGREGATORS.build(*rule), list(matrix), client_weights).value


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30, deadline=None)
@given(case=rounds())
def test_order_of_the_clients_does_not_matter(rule: tuple[str, str], case: Round) -> None:
    order = np.random.default_rng(case.seed).permutation(len(case.client_weights))
    shuffled = value_of(rule, case.matrix[order], case.client_weights[order])
    np.testing.assert_allclose(
        shuffled, value_of(rule, case.matrix, case.client_weights), atol=1e-7 * case.spread + case.rounding
    )


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30, deadline=None)
@given(case=rounds(), shift=st.floats(-1e3, 1e3))
def test_moving_all_updates_moves_the_result(rule: tuple[str, str], case: Round, shift: float) -> None:
    offset = shift * np.random.default_rng(case.seed).standard_normal(case.matrix.shape[1])
    moved = value_of(rule, case.matrix + offset, case.client_weights)
    tolerance = 1e-7 * case.spread + case.rounding + 1e-12 * abs(shift)
    np.testing.assert_allclose(moved - offset, value_of(rule, case.matrix, case.client_weights), atol=tolerance)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30, deadline=None)
@given(case=rounds(), exponent=st.integers(-40, 40), sign=st.sampled_from([1, -1]))
def test_scaling_all_updates_scales_the_result(rule: tuple[str, str], case: Round, exponent: int, sign: int) -> None:
    factor = sign * 10.0**exponent
    scaled = value_of(rule, factor * case.matrix, case.client_weights) / factor
    np.testing.assert_allclose(
        scaled, value_of(rule, case.matrix, case.client_weights), atol=1e-7 * case.spread + case.rounding
    )


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30, deadline=None)
@given(case=rounds())
def test_result_lies_within_the_updates(rule: tuple[str, str], case: Round) -> None:
    result = aggregate(AGGREGATORS.build(*rule), case.updates, case.client_weights)
    assert (result.value >= case.matrix.min(axis=0) - case.rounding).all()
    assert (result.value <= case.matrix.max(axis=0) + case.rounding).all()
    if result.weights is not None:
        assert (result.weights >= 0).all()
        np.testing.assert_allclose(result.weights.sum(), 1, rtol=1e-12)
        np.testing.assert_allclose(result.weights @ case.matrix, result.value, atol=case.rounding)


@pytest.mark.parametrize("rule", [("mean", ""), ("geometric-median", ""), ("median", "weighted = true")])
@settings(max_examples=30, deadline=None)
@given(case=rounds(), share=st.floats(0.1, 0.9))
def test_a_client_in_two_halves_counts_as_one(rule: tuple[str, str], case: Round, share: float) -> None:
    assume(rule[0] != "geometric-median" or len(case.matrix) != 2)  # two clients' is their mean
    matrix = np.vstack([case.matrix, case.matrix[:1]])
    client_weights = np.append(case.client_weights, (1 - share) * case.client_weights[0])
    client_weights[0] *= share
    whole = value_of(rule, case.matrix, case.client_weights)
    np.testing.assert_allclose(value_of(rule, matrix, client_weights), whole, atol=1e-7 * case.spread + case.rounding)


@settings(max_examples=100, deadline=None)
@given(case=rounds())
def test_geometric_median_beats_every_client_and_every_step(case: Round) -> None:
    """No update and no small step in a tried direction has a smaller sum of distances; two clients have their mean."""
    assume(len(case.matrix) != 2)
    result = aggregate(GeometricMedian(), case.updates, case.client_weights)
    directions = np.random.default_rng(case.seed).standard_normal((40, case.matrix.shape[1]))
    candidates = [*case.updates, *(result.value + 1e-3 * case.spread * directions)]
    sums = [float(case.client_weights @ np.linalg.norm(case.matrix - point, axis=1)) for point in candidates]
    assert case.client_weights @ result.distances <= min(sums) * (1 + 1e-8) + 10 * case.rounding


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    honest=st.integers(2, 30),
    size=st.integers(1, 200),
    share=st.floats(0, 1),
    exponent=st.floats(0, 12),
    together=st.booleans(),
)
def test_minority_cannot_drag_the_geometric_median_away(
    seed: int, honest: int, size: int, share: float, exponent: float, together: bool
) -> None:
    """With a hostile share a < 1/2 it stays within (1 - a) / sqrt(1 - 2 a) radii (Minsker, Bernoulli 2015)."""
    rng = np.random.default_rng(seed)
    hostile = int(share * (honest - 1))
    good = rng.standard_normal((honest, size)).astype(np.float32)
    bad = 10**exponent * rng.standard_normal((1 if together else hostile, size)) * np.ones((hostile, 1))
    result = aggregate(GeometricMedian(), [*good, *bad.astype(np.float32)], np.ones(honest + hostile))
    centre = good.mean(axis=0)
    radius = np.linalg.norm(good - centre, axis=1).max()
    part = hostile / (honest + hostile)
    limit = (1 - part) / np.sqrt(1 - 2 * part) * radius
    assert np.linalg.norm(result.value - centre) <= limit * (1 + 1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), honest=st.integers(1, 30), size=st.integers(1, 50), share=st.floats(0, 1))
def test_minority_cannot_drag_the_median_out_of_the_honest_range(
    weighted: bool, seed: int, honest: int, size: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    hostile = int(share * (honest - 1))
    good = rng.standard_normal((honest, size)).astype(np.float32)
    bad = (1e12 * rng.standard_normal((hostile, size))).astype(np.float32)
    value = aggregate(Median(weighted), [*bad, *good], np.ones(honest + hostile)).value
    assert (value >= good.min(axis=0)).all()
    assert (value <= good.max(axis=0)).all()


@pytest.mark.parametrize(
    ("name", "steps"), [*((name, "") for name in CHOOSING), ("trimmed-mean", "nnm = {}"), ("median", "nnm = {}")]
)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_clients=st.integers(5, 15), exponent=st.integers(-8, 8))
def test_choosing_rules_follow_order_shift_and_scale(
    name: str, steps: str, seed: int, num_clients: int, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix, rule = rng.standard_normal((num_clients, 20)), build_aggregator(name, "", steps)
    order, shift, factor = rng.permutation(num_clients), rng.standard_normal(20), 10.0**exponent
    if name == "bulyan":
        order.sort()  # among few updates scores are equal, and the first client's counts
    plain = aggregate(rule, list(matrix), np.ones(num_clients)).value
    moved = aggregate(rule, list(factor * (matrix[order] + shift)), np.ones(num_clients), clients=order.tolist()).value
    np.testing.assert_allclose(moved / factor - shift, plain, atol=1e-9)
    assert (plain >= matrix.min(axis=0) - 1e-12).all()
    assert (plain <= matrix.max(axis=0) + 1e-12).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_clients=st.integers(1, 15), exponent=st.integers(-8, 8))
def test_clipping_to_the_norm_of_another_follows_order_turn_and_scale(
    seed: int, num_clients: int, exponent: int
) -> None:
    """The global model is where it clips to, so it may be turned around and scaled, but not moved."""
    rng = np.random.default_rng(seed)
    matrix, rule = rng.standard_normal((num_clients, 20)), build_aggregator("mean", "", "arc = {}")
    order, factor = rng.permutation(num_clients), 10.0**exponent
    turn = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    plain = aggregate(rule, list(matrix), np.ones(num_clients)).value
    moved = aggregate(rule, list(factor * matrix[order] @ turn), np.ones(num_clients)).value
    np.testing.assert_allclose(moved / factor, plain @ turn, atol=1e-9)


@pytest.mark.parametrize(("name", "bound"), [("mda", 3.0), ("smea", 3.0), ("caf", 6.0), ("monna", 4.0)])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    honest=st.integers(3, 9),
    share=st.floats(0, 1),
    exponent=st.floats(0, 12),
    together=st.booleans(),
)
def test_minority_cannot_drag_a_chosen_mean_away(
    name: str, bound: float, seed: int, honest: int, share: float, exponent: float, together: bool
) -> None:
    """With n >= 3 f + 1 it stays within some radii of the honest ones; client 0, which MoNNA trusts, is honest."""
    rng = np.random.default_rng(seed)
    hostile = int(share * (honest - 1) / 2)
    good = rng.standard_normal((honest, 20))
    bad = 10**exponent * rng.standard_normal((1 if together else hostile, 20)) * np.ones((hostile, 1))
    result = aggregate(AGGREGATORS.build(name, f"f = {hostile}"), [*good, *bad], np.ones(honest + hostile))
    centre = good.mean(axis=0)
    assert np.linalg.norm(result.value - centre) <= bound * np.linalg.norm(good - centre, axis=1).max()
