"""Statistics of paired runs against scipy, against enumeration, and in their limit cases."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from server_app.sweep.statistics import (
    FLIPPED_PAIRS,
    clustered_p,
    holm,
    interval,
    overall_p,
    paired_p,
    pairs_needed,
    sign_flip_p,
    signed_rank_p,
    smallest_p,
)

RANDOM = np.random.default_rng(7)


def test_the_interval_is_student_s():
    sample = RANDOM.normal(0.7, 0.02, 5)
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert interval(sample) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert interval([0.5]) is None
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize("count", [2, 3, 6, 9, 10])
@pytest.mark.parametrize("digits", [1, 15])  # with one digit there are many ties, zeros among them
def test_sign_flips_are_counted_as_scipy_does(count, digits):
    differences = np.round(RANDOM.normal(0.3, 1, count), digits)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=10**4)
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue, abs=1e-12)


def test_sums_that_are_equal_but_for_rounding_are_equal():
    assert sign_flip_p(np.array([0.1, 0.2, 0.3])) == 0.25
    assert sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1.0  # their sum is 5.6e-17


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_the_smallest_p_is_reached_when_all_pairs_agree(count):
    differences = RANDOM.uniform(0.1, 1, count)
    assert sign_flip_p(differences) == smallest_p(count) == 2.0 ** (1 - count)
    assert sign_flip_p(np.zeros(count)) == 1.0


def test_many_pairs_are_tested_by_ranks():
    differences = RANDOM.normal(0.3, 1, FLIPPED_PAIRS + 1)
    expected = stats.wilcoxon(differences).pvalue
    assert paired_p(differences) == signed_rank_p(differences) == pytest.approx(expected, rel=1e-9)
    assert paired_p(differences[:-1]) == sign_flip_p(differences[:-1])
    assert paired_p(differences[:1]) is None


def test_ranks_that_contradict_the_mean_are_not_significant():
    differences = np.append(RANDOM.uniform(0.5, 1, 39), -100.0)
    assert differences.mean() < 0
    assert stats.wilcoxon(differences).pvalue < 0.001
    assert signed_rank_p(differences) == 1.0
    assert signed_rank_p(np.zeros(40)) == 1.0


def test_means_of_seeds_are_tested_by_student_s_t():
    means = RANDOM.normal(0.3, 1, 5)
    assert clustered_p(means) == pytest.approx(stats.ttest_1samp(means, 0).pvalue, rel=1e-12)
    assert clustered_p(means[:1]) is None
    assert (clustered_p(np.zeros(3)), clustered_p(np.full(3, 0.1))) == (1.0, 0.0)


def test_settings_that_repeat_each_other_count_as_one():
    seeds = np.array([0.02, 0.01, 0.03, -0.004])
    copies = np.tile(seeds, (6, 1))
    assert paired_p(copies.ravel()) < 0.001
    assert overall_p(copies) == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue)
    assert overall_p(copies) > 0.05


def test_over_all_settings_only_pairs_that_are_there_count():
    differences = RANDOM.normal(0.5, 1, (3, 4))
    differences[1, 2] = np.nan
    pairs, seeds = differences[~np.isnan(differences)], differences[:, [0, 1, 3]].mean(0)
    assert overall_p(differences) == max(sign_flip_p(pairs), stats.ttest_1samp(seeds, 0).pvalue)
    differences[0] = np.nan
    assert overall_p(differences) is None  # no seed has a pair in every setting


def test_holm_is_the_closure_of_bonferroni():
    p_values = [*RANDOM.uniform(0, 0.3, 5), 0.01, 0.01]

    def closed(member):
        """The largest Bonferroni p of all sets of hypotheses that hold the member."""
        sets = (set(chosen) for size in range(1, 8) for chosen in combinations(range(7), size))
        return max(min(1.0, len(each) * min(p_values[i] for i in each)) for each in sets if member in each)

    assert holm(p_values) == pytest.approx([closed(member) for member in range(7)])
    assert holm([]) == []


def test_holm_as_r_computes_it():
    # R 4: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])


@pytest.mark.parametrize("comparisons", [1, 2, 7, 28, 112])
def test_pairs_that_are_needed_are_just_enough(comparisons):
    needed = pairs_needed(comparisons)
    assert holm([smallest_p(needed)] + [1.0] * (comparisons - 1))[0] <= 0.05
    assert holm([smallest_p(needed - 1)] + [1.0] * (comparisons - 1))[0] > 0.05
