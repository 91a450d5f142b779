"""Metrics of a classifier, all of them computed from how often each class was found, occurred and was predicted."""

from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -100
"""Label of a pixel that belongs to no class."""


class MacroScores(NamedTuple):
    """Precision, recall and F1, each in [0, 1]: the unweighted mean over the classes."""

    precision: float
    recall: float
    f1: float


class ClassCounts(NamedTuple):
    """What the measures need of a confusion matrix (K, K), row = true class, column = predicted class: int64 (K,) each.

    ``hits`` is its diagonal, ``actual`` its row sums, ``predicted`` its column sums. With thousands of classes the
    matrix itself would take gigabytes.
    """

    hits: Tensor
    actual: Tensor
    predicted: Tensor


def class_counts(predictions: Tensor, labels: Tensor, num_classes: int) -> ClassCounts:
    """Count how often each class was found, occurred, and was predicted.

    Parameters
    ----------
    predictions, labels
        Classes 0 to ``num_classes - 1`` as integers, both of the same shape (one per example, or one per pixel).

    Returns
    -------
    ClassCounts
        On the CPU.

    Raises
    ------
    ValueError
        If the shapes differ, there is nothing to count, or a class is out of range.

    >>> [counts.tolist() for counts in class_counts(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)]
    [[1, 1], [2, 1], [1, 2]]
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"{tuple(predictions.shape)} predictions but {tuple(labels.shape)} labels: same shape expected"
        )
    if labels.numel() == 0:
        raise ValueError("no examples to measure: at least one is needed")
    actual = _checked("labels", labels, num_classes)
    predicted = _checked("predictions", predictions, num_classes)
    counted = (actual[actual == predicted], actual, predicted)
    return ClassCounts(*(torch.bincount(classes, minlength=num_classes) for classes in counted))


def _checked(name: str, classes: Tensor, num_classes: int) -> Tensor:
    """Return ``classes`` as int64 (N,) on the CPU, or raise ``ValueError``."""
    if classes.is_floating_point():
        raise ValueError(f"{name} are {classes.dtype}: class numbers (integers) expected")
    flat = classes.cpu().long().flatten()
    low, high = flat.min().item(), flat.max().item()
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name} from {low} to {high}: classes from 0 to {num_classes - 1} expected")
    return flat


def accuracy(counts: ClassCounts) -> float:
    """Return the share of correct predictions, in [0, 1]."""
    return (counts.hits.sum().double() / counts.actual.sum()).item()


def macro_scores(counts: ClassCounts) -> MacroScores:
    """Return macro precision, recall and F1.

    A class that neither occurs nor is predicted does not count. One that only occurs, or is only predicted,
    counts with 0. This is scikit-learn's ``average="macro", zero_division=0``.
    """
    hits, actual, predicted = counts.hits.double(), counts.actual, counts.predicted
    seen = actual + predicted > 0
    precision = hits / predicted.clamp(min=1)
    recall = hits / actual.clamp(min=1)
    f1 = 2 * hits / (actual + predicted).clamp(min=1)
    return MacroScores(*(score[seen].mean().item() for score in (precision, recall, f1)))


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return ``accuracy`` and ``macro-f1`` of ``logits`` (N, K, *D) against true ``labels`` (N, *D).

    Raises
    ------
    ValueError
        If the shapes do not fit, there are no examples, or a label is not one of the K classes.
    """
    counts = class_counts(logits.argmax(1), labels, logits.shape[1])
    return {"accuracy": accuracy(counts), "macro-f1": macro_scores(counts).f1}


def mean_iou(counts: ClassCounts) -> float:
    """Return the mean intersection over union of the classes, in [0, 1].

    A class that neither occurs nor is predicted does not count; scikit-learn's ``jaccard_score`` with
    ``average="macro"`` over the classes that occur or are predicted.
    """
    hits = counts.hits.double()
    union = counts.predicted + counts.actual - hits
    return (hits / union)[union > 0].mean().item()


def segmentation_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return ``accuracy``, ``macro-f1`` and ``mean-iou`` over the pixels of ``labels`` (N, *D) that have a class.

    ``logits`` are (N, K, *D); a label of -100 is no class. The F1 of a class is its Dice coefficient over all pixels.

    Raises
    ------
    ValueError
        If the shapes do not fit, or no pixel has a class.
    """
    predictions = logits.argmax(1)
    if predictions.shape == labels.shape:
        known = labels != IGNORED
        predictions, labels = predictions[known], labels[known]
    counts = class_counts(predictions, labels, logits.shape[1])
    return {
        "accuracy": accuracy(counts),
        "macro-f1": macro_scores(counts).f1,
        "mean-iou": mean_iou(counts),
    }
