"""Scores equal scikit-learn's, also when classes are absent from the labels, the predictions or both."""

import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from tasks.metrics import accuracy, class_counts, classification_metrics, macro_scores, mean_iou

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
    of_matrix = (expected.diagonal(), expected.sum(1), expected.sum(0))
    assert [each.tolist() for each in counts] == [each.tolist() for each in of_matrix]
    assert accuracy(counts) == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions), abs=1e-15)
    assert macro_scores(counts) == pytest.approx(tuple(scores[:3]), abs=1e-14)
    assert mean_iou(counts) == pytest.approx(overlap, abs=1e-14)


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
