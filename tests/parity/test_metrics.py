"""Scores equal scikit-learn's, also when classes are absent from the labels, the predictions or both."""

import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from tasks.metrics import (
    accuracy,
    balanced_accuracy,
    calibration_error,
    class_counts,
    classification_metrics,
    confusion_matrix,
    macro_scores,
    mean_iou,
    server_metrics,
)

Classes = npt.NDArray[np.int64]


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, Classes, Classes]:
    num_classes = draw(st.integers(1, 12))
    pair = st.tuples(*[st.integers(0, num_classes - 1)] * 2)
    labels, predictions = np.array(draw(st.lists(pair, min_size=1, max_size=30)), dtype=np.int64).T
    return num_classes, labels, predictions


def compare(num_classes: int, labels: Classes, predictions: Classes) -> None:
    counts = class_counts(torch.from_numpy(predictions), torch.from_numpy(labels), num_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns when there is a single class
        expected = sklearn_metrics.confusion_matrix(labels, predictions, labels=np.arange(num_classes))
        scores = sklearn_metrics.precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0)
        overlap = sklearn_metrics.jaccard_score(labels, predictions, average="macro", zero_division=0)
        balanced = sklearn_metrics.balanced_accuracy_score(labels, predictions)
    of_matrix = (expected.diagonal(), expected.sum(1), expected.sum(0))
    assert [each.tolist() for each in counts] == [each.tolist() for each in of_matrix]
    assert accuracy(counts) == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions), abs=1e-15)
    assert macro_scores(counts) == pytest.approx(tuple(scores[:3]), abs=1e-14)
    assert mean_iou(counts) == pytest.approx(overlap, abs=1e-14)
    assert balanced_accuracy(counts) == pytest.approx(balanced, abs=1e-14)
    matrix = confusion_matrix(torch.from_numpy(predictions), torch.from_numpy(labels), num_classes)
    np.testing.assert_array_equal(matrix, expected)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_small_sets_with_absent_classes(case: tuple[int, Classes, Classes]) -> None:
    compare(*case)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_large_sets(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(num_classes, size=5000)
    guess = rng.integers(num_classes, size=5000)
    compare(num_classes, labels, np.where(rng.random(5000) < 0.7, labels, guess))


def test_logits_and_labels_as_a_task_gets_them() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 7)).astype(np.float32)
    labels = rng.integers(5, size=500)  # classes 5 and 6 never occur, but are predicted
    measures = classification_metrics(torch.from_numpy(logits), torch.from_numpy(labels))
    predictions = logits.argmax(1)
    assert measures == pytest.approx(
        {
            "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
            "macro-f1": sklearn_metrics.f1_score(labels, predictions, average="macro", zero_division=0),
        },
        abs=1e-14,
    )


def test_what_the_server_measures_beside() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(400, 6)), rng.integers(4, size=400)
    measures, report = server_metrics(torch.from_numpy(logits), torch.from_numpy(labels))
    predictions = logits.argmax(1)
    macro = {"average": "macro", "zero_division": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that are predicted and never occur
        balanced = sklearn_metrics.balanced_accuracy_score(labels, predictions)
    assert measures == pytest.approx(
        {
            "balanced-accuracy": balanced,
            "macro-precision": sklearn_metrics.precision_score(labels, predictions, **macro),
            "macro-recall": sklearn_metrics.recall_score(labels, predictions, **macro),
            "calibration-error": slow_calibration_error(logits, labels),
        },
        abs=1e-12,
    )
    assert report.confusion is not None
    np.testing.assert_array_equal(report.confusion, sklearn_metrics.confusion_matrix(labels, predictions))


def slow_calibration_error(logits: npt.NDArray[np.float64], labels: Classes, bins: int = 15) -> float:
    """The formula of Guo et al. (2017), word by word."""
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = shares.max(1), shares.argmax(1) == labels
    error = 0.0
    for m in range(1, bins + 1):
        inside = ((m - 1) / bins < confidence) & (confidence <= m / bins)
        if inside.any():
            error += inside.sum() / len(labels) * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_in_parts_as_by_the_formula(bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.metrics.MOST_VALUES", 50)  # parts of 16 examples
    rng = np.random.default_rng(bins)
    logits, labels = 3 * rng.normal(size=(301, 3)), rng.integers(3, size=301)
    found = calibration_error(torch.from_numpy(logits), torch.from_numpy(labels), bins)
    assert found == pytest.approx(slow_calibration_error(logits, labels, bins), abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_dice_of_all_pixels_and_of_each_image(num_classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.metrics.MOST_VALUES", 150)  # parts of two images
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(-1, num_classes, size=(7, 8, 9))
    labels[0], labels[1][labels[1] > 0], labels[labels < 0] = -1, 0, -100  # an image without classes, one of background
    logits = torch.from_numpy(rng.normal(size=(7, num_classes, 8, 9)))
    logits[1, 0] = 9.0  # ... and seen as that
    measures, _ = server_metrics(logits, torch.from_numpy(labels))
    predictions, known = logits.argmax(1).numpy(), labels >= 0

    def dice(inside: npt.NDArray[np.bool_]) -> float:
        seen = [c for c in range(1, num_classes) if (labels[inside] == c).any() or (predictions[inside] == c).any()]
        return float(
            sklearn_metrics.f1_score(labels[inside], predictions[inside], labels=seen, average="macro") if seen else 1
        )

    images = [known & (np.arange(7) == image)[:, None, None] for image in range(1, 7)]
    assert measures["dice"] == pytest.approx(dice(known), abs=1e-14)
    assert measures["dice-per-image"] == pytest.approx(np.mean([dice(image) for image in images]), abs=1e-14)
