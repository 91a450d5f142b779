"""What must hold for every set of loss profiles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from strategies.detection import Groups, Robust, detect
from strategies.detection.base import Counts, Detector
from strategies.detection.detectors import fit_two
from strategies.detection.profiles import client_levels
from strategies.gram import Doubles


@st.composite
def tables(draw: st.DrawFn) -> tuple[Doubles, Counts]:
    """Any losses and counts (N, K) of 4 to 12 clients with at least one example each."""
    shape = draw(st.tuples(st.integers(4, 12), st.integers(1, 12)))
    losses = draw(arrays.arrays(np.float64, shape, elements=st.floats(0, 20)))
    counts = draw(arrays.arrays(np.int64, shape, elements=st.integers(0, 50)))
    counts[:, 0] += counts.sum(1) == 0
    return losses, counts


OURS = pytest.mark.parametrize("detector", [Robust(), Groups()])


@OURS
@settings(max_examples=60, deadline=None)
@given(table=tables(), random=st.randoms(use_true_random=False))
def test_the_order_of_the_clients_does_not_matter(detector: Detector, table: tuple[Doubles, Counts], random: object):
    losses, counts = table
    order = np.array(sorted(range(len(losses)), key=lambda _: random.random()))  # type: ignore[attr-defined]
    plain, moved = detect(detector, losses, counts), detect(detector, losses[order], counts[order])
    assert moved.components == plain.components
    np.testing.assert_allclose(moved.posterior, plain.posterior[order], atol=1e-4)


@OURS
@settings(max_examples=60, deadline=None)
@given(table=tables())
def test_the_same_profiles_give_the_same_answer_and_a_probability(detector: Detector, table: tuple[Doubles, Counts]):
    first, second = detect(detector, *table), detect(detector, *table)
    assert np.array_equal(first.posterior, second.posterior)
    assert first.reason == second.reason
    assert ((first.posterior >= 0) & (first.posterior <= 1)).all()
    assert np.array_equal(first.noisy, first.posterior > 0.5)


@settings(max_examples=60, deadline=None)
@given(tables(), st.floats(0, 10))
def test_a_shift_of_all_losses_changes_no_difference_between_clients(table: tuple[Doubles, Counts], shift: float):
    losses, counts = table
    levels, error = client_levels(losses, counts)
    moved, same = client_levels(losses + shift, counts)
    np.testing.assert_allclose(moved - moved.mean(), levels - levels.mean(), atol=1e-8)
    assert same == pytest.approx(error, abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float64, st.integers(2, 30), elements=st.floats(-5, 5)), st.floats(0.05, 2))
def test_two_groups_are_never_less_likely_than_one_and_lie_within_the_values(values: Doubles, spread: float):
    groups = fit_two(values, spread)
    one = -np.sum((values - values.mean()) ** 2) / (2 * spread**2) - len(values) * np.log(2 * np.pi * spread**2) / 2
    assert groups.log_likelihood(values) >= one - 1e-6
    assert values.min() - 1e-9 <= groups.lower <= groups.upper + 1e-9 <= values.max() + 2e-9
