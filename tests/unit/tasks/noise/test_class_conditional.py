"""Noise that depends on the class only: exact counts, matrices in limit cases, and refusals."""

import warnings
from typing import Any

import numpy as np
import pytest

from tasks.noise import NOISES, NoiseError, NoiseWarning, NoNoise, dominant, realised_rate
from tasks.noise.asymmetric import CIFAR10_PAIRS, CIFAR100_SUPERCLASSES, cycle_within
from tasks.noise.base import draw_from_rows
from tasks.plugins import PluginError
from tasks.seeds import rng

LABELS = np.arange(1000) % 10


def build(name: str, args: str = "", num_classes: int = 10, rate: float = 0.4, **context: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoiseWarning)
        return NOISES.build(name, args, num_classes=num_classes, rate=rate, **context)


def test_exact_symmetric_changes_exactly_its_share() -> None:
    noisy = build("symmetric", rate=0.29)(LABELS, rng(1))
    assert (noisy != LABELS).sum() == 290
    assert noisy.dtype == np.int64
    assert set(noisy[LABELS == 3]) == set(range(10))


@pytest.mark.parametrize("name", ["symmetric", "pair-flip", "symmetric-all", "asymmetric-cifar10", "instance"])
def test_rate_zero_changes_nothing_and_leaves_the_input_alone(name: str) -> None:
    labels = LABELS.copy()
    noisy = build(name, rate=0.0)(labels, rng(1), features=np.ones((1000, 3)))
    np.testing.assert_array_equal(noisy, LABELS)
    assert noisy is not labels
    build(name, rate=0.9)(labels, rng(1), features=np.ones((1000, 3)))
    np.testing.assert_array_equal(labels, LABELS)


def test_bernoulli_symmetric_has_a_random_count_about_its_rate() -> None:
    noise = build("symmetric", "exact = false", rate=0.3)
    counts = [int((noise(LABELS, rng(seed)) != LABELS).sum()) for seed in range(40)]
    assert len(set(counts)) > 10
    assert abs(np.mean(counts) - 300) < 4 * np.sqrt(1000 * 0.3 * 0.7 / 40)


def test_symmetric_all_is_wrong_less_often_than_it_redraws() -> None:
    noise = build("symmetric-all", rate=0.5)
    labels = np.arange(100_000) % 10
    assert abs(realised_rate(labels, noise(labels, rng(1))) - 0.45) < 0.01
    np.testing.assert_allclose(noise.transition_matrix()[0, :2], [0.55, 0.05])


@pytest.mark.parametrize(("step", "target"), [(1, 4), (-1, 2), (7, 0)])
def test_pair_flip_goes_to_the_neighbour(step: int, target: int) -> None:
    noisy = build("pair-flip", f"step = {step}", rate=0.5)(np.full(10, 3), rng(1))
    assert sorted(noisy) == sorted([3] * 5 + [target] * 5)


def test_asymmetric_cifar10_changes_its_share_of_the_affected_half() -> None:
    noisy = build("asymmetric-cifar10", rate=0.4)(LABELS, rng(1))
    changed = noisy != LABELS
    assert changed.sum() == 200
    assert set(zip(LABELS[changed].tolist(), noisy[changed].tolist(), strict=True)) == set(CIFAR10_PAIRS)


def test_asymmetric_pairs_may_be_names() -> None:
    names = ("world", "sports", "business")
    args = 'pairs = [["world", "business"], [1, 0]]'
    matrix = build("asymmetric", args, num_classes=3, rate=1.0, class_names=names).transition_matrix()
    np.testing.assert_array_equal(matrix, [[0, 0, 1], [1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("asymmetric-cifar100-block", [i // 5 for i in range(100)]),
        ("asymmetric-cifar100-superclass", CIFAR100_SUPERCLASSES),
    ],
)
def test_asymmetric_cifar100_circles_within_groups_of_five(name: str, groups: list[int]) -> None:
    targets = build(name, num_classes=100, rate=1.0).transition_matrix().argmax(1)
    np.testing.assert_array_equal(np.array(groups)[targets], groups)
    place = np.arange(100)
    for _ in range(4):
        place = targets[place]
        assert (place != np.arange(100)).all()
    np.testing.assert_array_equal(targets[place], np.arange(100))


def test_cycle_within_leaves_a_lonely_class_to_itself() -> None:
    assert cycle_within([0, 1, 0]) == ((0, 2), (1, 1), (2, 0))


def test_matrix_at_rate_one_is_the_transition_matrix() -> None:
    rows = [[0.7, 0.3, 0.0], [0.0, 0.8, 0.2], [0.1, 0.1, 0.8]]
    np.testing.assert_allclose(build("matrix", f"matrix = {rows}", num_classes=3, rate=1.0).transition_matrix(), rows)
    half = build("matrix", f"matrix = {rows}", num_classes=3, rate=0.5).transition_matrix()
    np.testing.assert_allclose(half, (np.eye(3) + rows) / 2)


def test_none_keeps_labels_of_any_shape() -> None:
    masks = np.arange(12).reshape(3, 2, 2) % 2
    noise = NoNoise(num_classes=2)
    np.testing.assert_array_equal(noise(masks, rng(1)), masks)
    np.testing.assert_array_equal(noise.transition_matrix(), np.eye(2))


def test_no_labels_stay_no_labels() -> None:
    for name in ("none", "symmetric", "symmetric-all", "asymmetric-cifar10"):
        assert build(name)(np.empty(0, dtype=np.int64), rng(1)).shape == (0,)
    assert build("asymmetric-cifar10", rate=1.0)(np.array([0, 1, 6]), rng(1)).tolist() == [0, 1, 6]


@pytest.mark.parametrize(
    ("name", "args", "context", "message"),
    [
        ("symmetric", "", {"rate": 1.2}, "between 0 and 1, not 1.2"),
        ("symmetric", "", {"rate": float("nan")}, "between 0 and 1, not nan"),
        ("symmetric", "", {"num_classes": 1}, "at least 2 classes"),
        ("pair-flip", "step = 10", {}, "to itself"),
        ("pair-flip", "step = 0.5", {}, "step must be a whole number, not 0.5"),
        ("symmetric", 'exact = "false"', {}, "exact must be true or false .without quotes., not 'false'"),
        ("matrix", "matrix = [[0.5, 0.5]]", {"num_classes": 2}, "2 rows of 2, not 1 rows"),
        ("matrix", "matrix = [[1.5, -0.5], [0, 1]]", {"num_classes": 2}, "no negative"),
        ("matrix", "matrix = [[0.5, 0.4], [0, 1]]", {"num_classes": 2}, "row 0 adds up to 0.9"),
        ("asymmetric", "pairs = [[0, 0]]", {}, "lead each class to one other class"),
        ("asymmetric", "pairs = [[0, 1], [0, 2]]", {}, "lead each class to one other class"),
        ("asymmetric", "pairs = [[0, 11]]", {}, "unknown class 11"),
        ("asymmetric", 'pairs = ["01"]', {}, "must be .true class, given class."),
        ("asymmetric", 'pairs = [["catt", 1]]', {"class_names": ("cat", "dog")}, "did you mean 'cat'"),
        ("asymmetric-cifar10", "", {"num_classes": 4}, "made for the 10 classes"),
        ("asymmetric-cifar100-block", "", {"num_classes": 10}, "made for the 100 classes"),
        ("symetric", "", {}, "did you mean 'symmetric'"),
        ("symmetric", "exat = true", {}, "exat"),
    ],
)
def test_wrong_arguments_are_explained(name: str, args: str, context: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build(name, args, **context)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 10]), "0..9, but run from 0 to 10"),
        (np.array([0, -100]), "run from -100"),
        (np.array([0.0, 1.0]), "whole numbers, not float64"),
        (np.zeros((2, 3, 3), dtype=np.int64), "choose the noise 'masks'"),
    ],
)
def test_wrong_labels_are_explained(labels: Any, message: str) -> None:
    with pytest.raises(NoiseError, match=message):
        build("symmetric")(labels, rng(1))


@pytest.mark.parametrize(
    ("name", "rate", "expected"),
    [("symmetric", 0.89, True), ("symmetric", 0.91, False), ("pair-flip", 0.49, True), ("pair-flip", 0.5, False)],
)
def test_a_noise_that_no_method_can_see_through_warns(name: str, rate: float, expected: bool) -> None:
    assert dominant(build(name, rate=rate).transition_matrix()) is expected
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        NOISES.build(name, num_classes=10, rate=rate)
    assert [w.category for w in caught] == ([] if expected else [NoiseWarning])


def test_the_warning_names_the_classes() -> None:
    with pytest.warns(NoiseWarning, match="class 9, 60% are labelled 1 and only 40%"):
        NOISES.build("asymmetric", "pairs = [[9, 1]]", num_classes=10, rate=0.6)


def test_realised_rate() -> None:
    assert realised_rate(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 0])) == 0.5
    assert realised_rate(np.empty(0), np.empty(0)) == 0.0
    with pytest.raises(NoiseError, match="shape"):
        realised_rate(np.zeros(3), np.zeros(4))


def test_rows_are_drawn_like_numpy_choice_draws() -> None:
    # np.random.RandomState(3).choice(4, p=row), one row after the other, uses one uniform number each
    rows = np.random.default_rng(0).dirichlet([0.3] * 4, size=200)
    rows[:50, 0], rows[50:100, 3] = 0.0, 0.0
    rows /= rows.sum(1, keepdims=True)
    stream = np.random.RandomState(3)
    expected = [stream.choice(4, p=row) for row in rows]
    np.testing.assert_array_equal(draw_from_rows(rows, np.random.RandomState(3).random_sample(200)), expected)
