"""Ranks of options, agreement of settings and stability of the first rank against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from server_app.sweep.ranking import agreement, first_shares, ranks

RANDOM = np.random.default_rng(3)


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_ranks_are_scipy_s(lower_is_better):
    means = np.round(RANDOM.uniform(0, 1, (6, 5)), 1)  # ties
    means[2, 3] = np.nan
    expected = stats.rankdata(means if lower_is_better else -means, axis=0, nan_policy="omit")
    np.testing.assert_array_equal(ranks(means, lower_is_better), expected)


def test_means_that_are_equal_but_for_rounding_share_a_rank():
    assert ranks(np.array([[0.1 + 0.2], [0.3]])).tolist() == [[1.5], [1.5]]


@pytest.mark.parametrize("digits", [1, 15])
def test_agreement_is_friedman_s_statistic_over_its_largest_value(digits):
    means = np.round(RANDOM.uniform(0, 1, (5, 4)), digits)
    statistic = stats.friedmanchisquare(*means).statistic
    assert agreement(ranks(means)) == pytest.approx(statistic / (4 * (5 - 1)), rel=1e-9)


def test_agreement_in_its_limits():
    same = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    assert agreement(same) == 1.0
    assert agreement(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])) == 0.0
    assert agreement(np.full((3, 2), 2.0)) is None  # nothing but ties
    assert agreement(same[:, :1]) is None
    assert agreement(same[:0]) is None


def test_a_first_rank_that_depends_on_which_seeds_are_drawn():
    values = np.array([[[3.0, 0.0]], [[0.0, 1.0]]])  # the second is ahead only if seed 2 is drawn twice
    assert first_shares(values) == pytest.approx([0.75, 0.25], abs=0.03)
    assert first_shares(values, lower_is_better=True) == pytest.approx([0.25, 0.75], abs=0.03)


def test_a_first_rank_that_depends_on_which_settings_are_drawn():
    ahead_in_two_of_three = np.array([[3.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
    values = np.repeat(ahead_in_two_of_three[:, :, None], 4, axis=2)
    assert first_shares(values).tolist() == [1.0, 0.0]
    # three settings with replacement: the first leads if it does in two or three of them
    expected = (2 / 3) ** 3 + 3 * (2 / 3) ** 2 * (1 / 3)
    assert first_shares(values, also_settings=True)[0] == pytest.approx(expected, abs=0.03)


def test_options_that_are_alike_share_the_first_rank():
    values = np.repeat(RANDOM.uniform(0, 1, (1, 3, 4)), 2, axis=0)
    assert first_shares(values).tolist() == [0.5, 0.5]
    assert first_shares(values[:, :, :1]) is None
