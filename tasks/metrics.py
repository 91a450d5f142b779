"""Metrics of a classifier, all of them computed from its confusion matrix."""

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


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count how often each class was taken for each class.

    Parameters
    ----------
    predictions, labels
        Classes 0 to ``num_classes - 1`` as integers, both of the same shape (one per example, or one per pixel).

    Returns
    -------
    Tensor
        int64 (num_classes, num_classes) on the CPU: row = true class, column = predicted class.

    Raises
    ------
    ValueError
        If the shapes differ, there is nothing to count, or a class is out of range.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"{tuple(predictions.shape)} predictions but {tuple(labels.shape)} labels: same shape expected"
        )
    if labels.numel() == 0:
        raise ValueError("no examples to measure: at least one is needed")
    rows = _checked("labels", labels, num_classes)
    columns = _checked("predictions", predictions, num_classes)
    return torch.bincount(rows * num_classes + columns, minlength=num_classes**2).reshape(num_classes, num_classes)


def _checked(name: str, classes: Tensor, num_classes: int) -> Tensor:
    """Return ``classes`` as int64 (N,) on the CPU, or raise ``ValueError``."""
    if classes.is_floating_point():
        raise ValueError(f"{name} are {classes.dtype}: class numbers (integers) expected")
    flat = classes.cpu().long().flatten()
    low, high = flat.min().item(), flat.max().item()
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name} from {low} to {high}: classes from 0 to {num_classes - 1} expected")
    return flat


def accuracy(confusion: Tensor) -> float:
    """Return the share of correct predictions in a confusion matrix (K, K), in [0, 1]."""
    return (confusion.trace().double() / confusion.sum()).item()


def macro_scores(confusion: Tensor) -> MacroScores:
    """Return macro precision, recall and F1 of a confusion matrix (K, K), rows = true classes.

    A class that neither occurs nor is predicted does not count. One that only occurs, or is only predicted,
    counts with 0. This is scikit-learn's ``average="macro", zero_division=0``.
    """
    hits = confusion.diagonal().double()
    actual, predicted = confusion.sum(1), confusion.sum(0)
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
    confusion = confusion_matrix(logits.argmax(1), labels, logits.shape[1])
    return {"accuracy": accuracy(confusion), "macro-f1": macro_scores(confusion).f1}


def mean_iou(confusion: Tensor) -> float:
    """Return the mean intersection over union of the classes of a confusion matrix (K, K), in [0, 1].

    A class that neither occurs nor is predicted does not count; scikit-learn's ``jaccard_score`` with
    ``average="macro"`` over the classes that occur or are predicted.
    """
    hits = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - hits
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
    confusion = confusion_matrix(predictions, labels, logits.shape[1])
    return {
        "accuracy": accuracy(confusion),
        "macro-f1": macro_scores(confusion).f1,
        "mean-iou": mean_iou(confusion),
    }
