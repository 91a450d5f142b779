import numpy as np
import pytest
from scipy.stats import norm

from tasks.gaussian_mixture import between_zero_and_one, fit_mixture, lower_posterior, upper_group


def two_groups(low: int, high: int) -> np.ndarray:
    draws = np.random.default_rng(0)
    return np.concatenate([draws.normal(1.0, 0.1, low), draws.normal(3.0, 0.2, high)])


@pytest.mark.parametrize(("low", "high"), [(60, 40), (90, 10), (5, 5)])
def test_two_groups_far_apart_are_told_apart(low: int, high: int):
    assert upper_group(two_groups(low, high), 0).tolist() == [False] * low + [True] * high


def test_the_border_is_where_the_densities_cross():
    draws = np.random.default_rng(1)
    values = np.concatenate([draws.normal(0.0, 1.0, 20000), draws.normal(4.0, 0.5, 10000)])
    likelier = 2 / 3 * norm.pdf(values) < 1 / 3 * norm.pdf(values, 4.0, 0.5)
    assert (upper_group(values, 0) == likelier).mean() > 0.995


def test_the_order_of_the_values_moves_with_the_answer():
    values = two_groups(30, 20)
    order = np.random.default_rng(2).permutation(50)
    np.testing.assert_array_equal(upper_group(values[order], 0), upper_group(values, 0)[order])


@pytest.mark.parametrize("values", [[], [1.0], [2.0] * 9])
def test_without_two_different_values_there_is_no_upper_group(values: list[float]):
    assert not upper_group(np.array(values), 0).any()


def test_two_values_are_two_groups_and_any_seed_will_do():
    assert upper_group(np.array([5.0, 1.0]), 2**70).tolist() == [True, False]


def test_a_fit_is_the_most_likely_mixture():
    values = two_groups(60, 40)
    groups = fit_mixture(values, 0)
    expected = [[part.mean(), part.var(), share] for part, share in ((values[:60], 0.6), (values[60:], 0.4))]
    np.testing.assert_allclose(groups, expected, rtol=1e-4, atol=2e-6)
    again = fit_mixture(values, 1, start=np.array([[2.9, 0.1, 0.0], [0.5, 0.2, 1.0]]))
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=2e-6)  # the lower group first, wherever it began


def test_the_posterior_is_that_of_bayes():
    groups, values = np.array([[0.0, 1.0, 0.7], [3.0, 0.25, 0.3]]), np.linspace(-2, 5, 29)
    density = [weight * norm.pdf(values, mean, variance**0.5) for mean, variance, weight in groups]
    np.testing.assert_allclose(lower_posterior(values, groups), density[0] / (density[0] + density[1]))
    assert lower_posterior(np.array([1e6]), groups).tolist() == [1.0]  # where both densities are 0 in floating point


@pytest.mark.parametrize("values", [np.array([]), np.array([0.5]), np.full(7, 0.5)])
def test_of_equal_values_all_are_of_the_first_group(values: np.ndarray):
    assert (lower_posterior(values, fit_mixture(values, 0)) == 1).all()
    assert not between_zero_and_one(values).any()


def test_values_are_scaled():
    assert between_zero_and_one(np.array([3.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 0.5]
