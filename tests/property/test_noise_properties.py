"""Any class-conditional noise hits its rate and its transition matrix, and depends on its generator alone."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from tasks.noise import NOISES, RATE_DISTRIBUTIONS, NoiseWarning, dominant, realised_rate
from tasks.noise.base import draw_from_rows, exact_count

pytestmark = pytest.mark.filterwarnings("ignore::tasks.noise.NoiseWarning")

quick = settings(max_examples=25, deadline=None)
rates = st.floats(0.0, 1.0)
seeds = st.integers(0, 2**32)
shapes = st.tuples(st.integers(2, 12), st.integers(0, 200))
classwise = st.sampled_from(["symmetric", "symmetric-all", "pair-flip", "matrix"])


def build(name: str, num_classes: int, rate: float, seed: int = 0, **args: Any) -> Any:
    if name == "matrix":
        args["matrix"] = np.random.default_rng(seed).dirichlet(np.ones(num_classes), num_classes).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoiseWarning)
        return NOISES.build(name, args, num_classes=num_classes, rate=rate)


@quick
@given(st.sampled_from(["symmetric", "pair-flip"]), shapes, rates, seeds)
def test_exact_noise_changes_the_nearest_whole_number_of_labels(
    name: str, shape: tuple[int, int], rate: float, seed: int
) -> None:
    num_classes, size = shape
    labels = np.random.default_rng(seed).integers(num_classes, size=size)
    noisy = build(name, num_classes, rate)(labels, np.random.default_rng(seed))
    assert abs((noisy != labels).sum() - rate * size) <= 0.5 + 1e-9
    assert noisy.size == 0 or 0 <= noisy.min() <= noisy.max() < num_classes


@quick
@given(classwise, st.integers(2, 6), rates, st.booleans(), seeds)
def test_given_labels_follow_the_transition_matrix(
    name: str, num_classes: int, rate: float, exact: bool, seed: int
) -> None:
    noise = build(name, num_classes, rate, seed, exact=exact)
    matrix = noise.transition_matrix()
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)
    assert matrix.min() >= 0
    labels = np.arange(6000) % num_classes
    noisy = noise(labels, np.random.default_rng(seed))
    for true in range(num_classes):
        counts = np.bincount(noisy[labels == true], minlength=num_classes)
        possible = matrix[true] > 1e-12
        assert counts[~possible].sum() == 0
        expected = matrix[true][possible] * counts.sum()
        if possible.sum() > 1 and expected.min() >= 5:
            assert chisquare(counts[possible], expected * counts.sum() / expected.sum()).pvalue > 1e-7


@quick
@given(classwise, st.integers(2, 6), rates, seeds)
def test_equal_generators_give_equal_labels_and_the_input_stays(
    name: str, num_classes: int, rate: float, seed: int
) -> None:
    labels = np.arange(100) % num_classes
    noise = build(name, num_classes, rate, seed)
    first, second = (noise(labels, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(labels, np.arange(100) % num_classes)


@quick
@given(st.integers(2, 30), st.floats(0.05, 0.95), seeds)
def test_symmetric_noise_is_dominant_below_its_known_limit(num_classes: int, rate: float, seed: int) -> None:
    limit = (num_classes - 1) / num_classes
    if abs(rate - limit) > 1e-6:
        assert dominant(build("symmetric", num_classes, rate).transition_matrix()) is (rate < limit)


@quick
@given(st.integers(1, 40), st.floats(0, 1), st.floats(0, 1), seeds)
def test_every_law_gives_one_rate_per_client_within_its_range(n: int, a: float, b: float, seed: int) -> None:
    low, high = sorted((a, b))
    for name, args in (
        ("linear", {"min": low, "max": high}),
        ("linear", {"min": low, "max": high, "official": True}),
        ("uniform", {"min": low, "max": high}),
        ("constant", {"rate": low}),
    ):
        drawn = RATE_DISTRIBUTIONS.build(name, args)(n, np.random.default_rng(seed))
        assert drawn.shape == (n,)
        assert drawn.min() >= low - 1e-12
        assert drawn.max() <= high + 1e-12
    if n > 1:
        assert RATE_DISTRIBUTIONS.build("linear", {"min": low, "max": high})(n, np.random.default_rng(seed))[-1] == high
    fedcorr = RATE_DISTRIBUTIONS.build("bernoulli", {"rho": low, "tau": high})(n, np.random.default_rng(seed))
    assert all(rate == 0 or high <= rate <= 1 for rate in fedcorr)


@quick
@given(rates, st.integers(0, 10**6))
def test_exact_count_is_the_nearest_whole_number(rate: float, size: int) -> None:
    assert abs(exact_count(rate, size) - rate * size) <= 0.5 + 1e-9
    assert 0 <= exact_count(rate, size) <= size


@quick
@given(st.integers(1, 8), seeds)
def test_impossible_columns_are_never_drawn(width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(width, 0.5), 50)
    rows[rng.random(rows.shape) < 0.5] = 0
    rows[np.arange(50), rng.integers(width, size=50)] = 0.3
    for uniforms in (np.zeros(50), np.full(50, np.nextafter(1, 0)), rng.random(50)):
        assert (rows[np.arange(50), draw_from_rows(rows, uniforms)] > 0).all()


@quick
@given(st.floats(0.02, 0.98), seeds)
def test_instance_noise_hits_its_rate(rate: float, seed: int) -> None:
    labels = np.arange(4000) % 4
    features = np.random.default_rng(seed).normal(size=(4000, 3))
    noisy = NOISES.build("instance", num_classes=4, rate=rate)(labels, np.random.default_rng(seed), features=features)
    assert abs(realised_rate(labels, noisy) - rate) < 5 * np.sqrt(rate * (1 - rate) / 4000)
