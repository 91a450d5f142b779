import numpy as np
import pytest

from client_app.label_quality import class_thresholds, confident_joint, estimated_joint, suspicion

SURE = np.array([[0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.75, 0.15, 0.1], [0.1, 0.2, 0.7]])
LABELS = np.array([0, 0, 1, 1, 2])


def by_loops(beliefs, labels):
    """The counts and the calibrated joint as the paper writes them: equations 1 and 3."""
    classes = range(beliefs.shape[1])
    threshold = {
        k: np.mean([p[k] for p, y in zip(beliefs, labels, strict=True) if y == k])
        for k in classes
        if k in labels.tolist()
    }
    counts = np.zeros((len(classes),) * 2)
    for p, given in zip(beliefs, labels, strict=True):
        sure = [k for k in threshold if p[k] >= threshold[k]]
        if sure:
            counts[given, max(sure, key=lambda k: p[k])] += 1
    joint = np.zeros_like(counts)
    for k in threshold:
        row = counts[k] if counts[k].any() else np.eye(len(classes))[k]
        joint[k] = row / row.sum() * np.mean(labels == k)
    return counts, joint


def test_thresholds_are_the_mean_confidence_in_the_given_class():
    assert class_thresholds(SURE, LABELS) == pytest.approx([0.8, 0.475, 0.7])


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


def test_a_perfect_model_finds_the_exact_joint():
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    given = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    expected = np.array([[3, 0, 0], [1, 2, 0], [0, 1, 1]]) / 8
    assert estimated_joint(np.eye(3)[truth], given) == pytest.approx(expected)


def test_suspicion_runs_from_certainly_right_to_certainly_wrong_and_crosses_a_half_where_the_model_is_undecided():
    beliefs = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.4, 0.35, 0.25], [0.4, 0.45, 0.15]])
    assert suspicion(beliefs, np.zeros(5, int)) == pytest.approx([0.0, 1.0, 0.5, 0.475, 0.525])


@pytest.mark.parametrize("labels", [[0], [1]], ids=["right", "wrong"])
def test_one_example_is_enough(labels: list[int]):
    beliefs, given = np.array([[0.9, 0.1]]), np.array(labels)
    assert estimated_joint(beliefs, given).trace() == pytest.approx(1.0)  # it is its class's own threshold
    assert suspicion(beliefs, given) == pytest.approx([0.1 if labels == [0] else 0.9])
