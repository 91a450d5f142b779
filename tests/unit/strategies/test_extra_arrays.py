"""Combination of named arrays: rules, memory, limits on claimed counts, and their state."""

from collections.abc import Mapping

import numpy as np
import pytest

from strategies.extra_arrays import ArrayCombiner
from strategies.query import model_record
from tasks.extra_arrays import Doubles, ExtraArray
from tests.messages import MODEL, record

NAME = "extra/x"
PRESENT = np.zeros(2, np.float32)
EXAMPLES = {1: 10, 2: 30, 5: 60}
WEIGHTS = np.array([0.1, 0.3, 0.6])
ARRAYS = {client: np.array([client, -client], np.float32) for client in EXAMPLES}


def combined(one: ArrayCombiner, arrays: Mapping[int, np.ndarray], examples: Mapping[int, int] = EXAMPLES) -> Doubles:
    counts = np.array([examples[client] for client in arrays], np.float64)
    return one.combine(NAME, arrays, examples, counts / counts.sum(), PRESENT)


def test_the_rule_is_the_mean_and_behind_a_robust_aggregator_the_median():
    assert combined(ArrayCombiner([ExtraArray("x", (2,))], False), ARRAYS) == pytest.approx([3.7, -3.7])
    assert combined(ArrayCombiner([ExtraArray("x", (2,))], True), ARRAYS).tolist() == [2, -2]


def test_a_method_may_bring_its_own_rule_which_knows_weights_and_present_value():
    def towards_the_last(values: Doubles, weights: Doubles, present: Doubles) -> Doubles:
        assert values.shape == (3, 2)
        assert values.dtype == np.float64
        assert np.allclose(weights, WEIGHTS)
        return np.asarray(present + values[-1])

    declared = ExtraArray("x", (2,), rule=towards_the_last)
    assert ArrayCombiner([declared], False).combine(NAME, ARRAYS, EXAMPLES, WEIGHTS, PRESENT + 1).tolist() == [6, -4]
    wrong = ExtraArray("x", (2,), rule=lambda values, weights, present: values)
    with pytest.raises(ValueError, match=r"returned \(3, 2\), expected \(2,\)"):
        combined(ArrayCombiner([wrong], False), ARRAYS)


def test_the_last_array_of_every_client_is_remembered_by_its_example_count():
    one = ArrayCombiner([ExtraArray("x", (2,), remembered=True)], False)
    combined(one, ARRAYS)
    again = combined(one, {2: np.array([7.0, 7.0])})
    assert again == pytest.approx((10 * np.array([1, -1]) + 30 * 7.0 + 60 * np.array([5, -5])) / 100)
    copied = ArrayCombiner([ExtraArray("x", (2,), remembered=True)], False)
    copied.load_state_dict(one.state_dict())
    new = {9: np.array([1.0, 2.0])}
    assert np.array_equal(combined(copied, new, {9: 100}), combined(one, new, {9: 100}))
    with pytest.raises(ValueError, match="remembered arrays"):
        ArrayCombiner([], False).load_state_dict(one.state_dict())


def test_a_claim_of_a_billion_examples_does_not_outvote_the_others():
    seen: list[Doubles] = []

    def note(values: Doubles, weights: Doubles, present: Doubles) -> Doubles:
        seen.append(weights)
        return present

    one = ArrayCombiner([ExtraArray("x", (2,), robust_rule=note, remembered=True)], True)
    combined(one, ARRAYS, {1: 10, 2: 10, 5: 10**9})
    assert seen[0] == pytest.approx([2 / 7, 2 / 7, 3 / 7])


def test_questions_are_about_the_model_alone():
    plain = record(MODEL)
    assert model_record(plain) is plain
    assert [*model_record(record(MODEL | {"extra/x": PRESENT, "network-2/weight": PRESENT}))] == [*MODEL]
