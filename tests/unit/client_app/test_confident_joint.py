"""The confident joint of confident learning by its definition, and limit cases; cleanlab's is in tests/parity."""

import tracemalloc

import numpy as np
import pytest

from client_app.label_quality import class_thresholds, confident_joint, estimated_joint, joint_noise_rate

SURE = np.array([[0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.75, 0.15, 0.1], [0.1, 0.2, 0.7]])
SURE_LABELS = np.array([0, 0, 1, 1, 2])


def by_loops(beliefs, labels):
    """The counts and the calibrated joint as the paper writes them: equations 1 and 3, of beliefs above 1e-6."""
    classes = range(beliefs.shape[1])
    threshold = {
        k: np.mean([p[k] for p, y in zip(beliefs, labels, strict=True) if y == k])
        for k in classes
        if k in labels.tolist()
    }
    counts = np.zeros((len(classes),) * 2)
    for p, given in zip(beliefs, labels, strict=True):
        sure = [k for k in threshold if p[k] >= threshold[k] and p[k] > 1e-6]
        if sure:
            counts[given, max(sure, key=lambda k: p[k])] += 1
    joint = np.zeros_like(counts)
    for k in threshold:
        row = counts[k] if counts[k].any() else np.eye(len(classes))[k]
        joint[k] = row / row.sum() * np.mean(labels == k)
    return counts, joint


def test_thresholds_are_the_mean_confidence_in_the_given_class():
    assert class_thresholds(SURE, SURE_LABELS) == pytest.approx([0.8, 0.475, 0.7])


def test_a_class_that_is_never_given_is_never_sure():
    beliefs = np.array([[0.1, 0.9], [0.6, 0.4]])
    assert class_thresholds(beliefs, np.array([0, 0])).tolist() == [0.35, np.inf]
    assert confident_joint(beliefs, np.array([0, 0])).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("seed", range(20))
def test_the_joint_is_that_of_plain_loops(seed: int):
    draw = np.random.default_rng(seed)
    size, classes = int(draw.integers(1, 60)), int(draw.integers(2, 8))
    beliefs = draw.dirichlet(np.full(classes, 0.5), size)
    labels = draw.integers(0, classes, size)
    counts, joint = by_loops(beliefs, labels)
    assert confident_joint(beliefs, labels).tolist() == counts.tolist()
    assert estimated_joint(beliefs, labels) == pytest.approx(joint)
    assert estimated_joint(beliefs, labels).sum() == pytest.approx(1.0)


TINY = 1e-9
LIMITS = {
    "a class of tiny threshold": (
        [[0.99, 0.01, TINY], [0.9, 0.1, TINY], [0.01, 0.99, TINY], [1, TINY, TINY]],
        [0, 0, 1, 2],
    ),
    "a class that is never believed": ([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0.6, 0.4, 0]], [0, 0, 1, 2]),
    "all thresholds tiny": ([[TINY, 1 - TINY], [1 - TINY, TINY]], [0, 1]),
    "all thresholds tiny, the believed class not given": ([[TINY, TINY, 1], [2 * TINY, TINY, 1]], [0, 1]),
    "a class without an example": ([[0.7, 0.1, 0.2], [0.4, 0.1, 0.5], [0.2, 0.1, 0.7]], [0, 0, 2]),
    "ties between two classes": ([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.2, 0.2, 0.6]], [0, 1, 2]),
    "small thresholds": ([[3e-6, 0.3, 0.7], [3.6e-6, 0.3, 0.7], [0.05, 0.9, 0.05]], [0, 0, 1]),
}


@pytest.mark.parametrize(("beliefs", "labels"), LIMITS.values(), ids=LIMITS)
def test_limit_cases_of_the_joint_are_those_of_the_definition(beliefs: list[list[float]], labels: list[int]):
    table, given = np.array(beliefs), np.array(labels)
    counts, joint = by_loops(table, given)
    assert confident_joint(table, given).tolist() == counts.tolist()
    assert estimated_joint(table, given) == pytest.approx(joint)


def test_nobody_is_confident_of_a_class_that_the_model_does_not_believe_in():
    beliefs, labels = map(np.array, LIMITS["a class of tiny threshold"])
    assert confident_joint(beliefs, labels).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert joint_noise_rate(beliefs, labels) == 0.25


def test_equal_beliefs_that_differ_in_their_last_bits_are_equal():
    beliefs = np.array([[0.3, 0.7]] * 3 + [[0.8, 0.2]] * 3)
    beliefs[[0, 3]] *= 1 - 1e-15
    assert confident_joint(beliefs, np.array([0, 0, 0, 1, 1, 1])).tolist() == [[0, 3], [3, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_the_noise_rate_needs_the_diagonal_only(seed: int):
    draw = np.random.default_rng(seed)
    beliefs, labels = draw.dirichlet(np.full(5, 0.4), 80), draw.integers(0, 5, 80)
    assert joint_noise_rate(beliefs, labels) == 1 - np.trace(estimated_joint(beliefs, labels))


def test_thousands_of_classes_make_no_table_of_classes_by_classes():
    classes = 20_000
    beliefs = np.full((4, classes), 0.5 / classes)
    beliefs[np.arange(4), [7, 7, 8, 7]] += 0.5
    tracemalloc.start()
    assert joint_noise_rate(beliefs, np.array([7, 7, 8, 8])) == pytest.approx(0.25)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000  # the joint would take 3.2 GB
    tracemalloc.stop()


def test_a_perfect_model_finds_the_exact_joint():
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    given = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    expected = np.array([[3, 0, 0], [1, 2, 0], [0, 1, 1]]) / 8
    assert estimated_joint(np.eye(3)[truth], given) == pytest.approx(expected)
