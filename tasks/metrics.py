"""Metrics of a classifier: those of how often each class was found, occurred and was predicted, and its calibration."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -100
"""Label of a pixel that belongs to no class."""
MOST_CONFUSED = 200
"""Classes up to which a confusion matrix is made: 40,000 numbers."""
CALIBRATION_BINS = 15
MOST_VALUES = 2**22  # logits or labels that are looked at together: what is made of them takes 32 MB at most


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


class ClassReport(NamedTuple):
    """What one evaluation counted of each class; ``confusion`` (K, K) is None beyond :data:`MOST_CONFUSED` classes."""

    counts: ClassCounts
    confusion: Tensor | None


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
    actual, predicted = _pair(predictions, labels, num_classes)
    counted = (actual[actual == predicted], actual, predicted)
    return ClassCounts(*(torch.bincount(classes, minlength=num_classes) for classes in counted))


def _pair(predictions: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return both, true classes first, as int64 (N,) on the CPU, or raise ``ValueError``."""
    if predictions.shape != labels.shape:
        raise ValueError(
            f"{tuple(predictions.shape)} predictions but {tuple(labels.shape)} labels: same shape expected"
        )
    if labels.numel() == 0:
        raise ValueError("no examples to measure: at least one is needed")
    return _checked("labels", labels, num_classes), _checked("predictions", predictions, num_classes)


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


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return how often each class (row) was predicted as each (column), int64 (K, K); see :func:`class_counts`.

    Raises
    ------
    ValueError
        If the shapes differ, there is nothing to count, or a class is out of range.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    actual, predicted = _pair(predictions, labels, num_classes)
    cells = torch.bincount(actual * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def balanced_accuracy(counts: ClassCounts) -> float:
    """Return the mean recall of the classes that occur, in [0, 1] (Brodersen et al., ICPR 2010).

    :func:`macro_scores` also counts a class that is predicted but never occurs; this does not.
    """
    occurs = counts.actual > 0
    return (counts.hits[occurs].double() / counts.actual[occurs]).mean().item()


def foreground_dice(counts: ClassCounts) -> float:
    """Return the mean Dice coefficient of all classes but the first, the background, in [0, 1].

    A class that neither occurs nor is predicted does not count; 1 if none does either.
    """
    return _dice(*(each[None, 1:] for each in counts)).item()


def _dice(hits: Tensor, actual: Tensor, predicted: Tensor) -> Tensor:
    """Return the mean Dice of the classes that each row (N, C) has or is given, 1 without any, float64 (N,)."""
    total = actual + predicted
    scores, seen = 2 * hits.double() / total.clamp(min=1), (total > 0).sum(1)
    return torch.where(seen > 0, scores.sum(1) / seen.clamp(min=1), 1.0)


def dice_per_image(predictions: Tensor, labels: Tensor, num_classes: int) -> float:
    """Return the mean of :func:`image_dice`, as segmentation challenges report it."""
    return image_dice(predictions, labels, num_classes).mean().item()


def image_dice(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return each image's :func:`foreground_dice`, float64 (n,).

    ``predictions`` and ``labels`` are (N, *D). An image without any pixel that has a class does not count. With two
    classes this is the Dice of ``probability > 0.5`` without smoothing: 1 for an image without foreground of which none
    is predicted.
    """
    found = []
    for predicted, given in _parts(predictions.cpu(), labels.cpu()):
        size, known = len(given) * num_classes, given != IGNORED
        first = torch.arange(0, size, num_classes).view(-1, *[1] * (given.dim() - 1))  # each image has its own classes
        actual, guess = (each.flatten() if known.all() else each[known] for each in (given + first, predicted + first))
        hits = torch.bincount(actual, (actual == guess).double(), minlength=size)
        sets = (hits, torch.bincount(actual, minlength=size), torch.bincount(guess, minlength=size))
        found.append(_dice(*(each.view(-1, num_classes)[:, 1:] for each in sets))[known.flatten(1).any(1)])
    return torch.cat(found)


def calibration_error(logits: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error, in [0, 1] (Guo et al., ICML 2017).

    The largest probability of each prediction falls into one of ``bins`` intervals of equal width, open below and
    closed above. Returned is the mean over the predictions of the distance, within their bin, between the mean of these
    probabilities and the share of right predictions. ``logits`` are (N, K, *D), ``labels`` (N, *D), -100 is no class.

    Raises
    ------
    ValueError
        If there are no labels, or a probability is no number because the logits are not finite.
    """
    error = _calibration_error(logits, labels, bins)
    if math.isnan(error):
        raise ValueError("the logits are not finite, so there are no probabilities: the model has diverged")
    return error


def _calibration_error(logits: Tensor, labels: Tensor, bins: int) -> float:
    """Return what :func:`calibration_error` does, but NaN where it raises for a diverged model."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    gaps, count = torch.zeros(bins, dtype=torch.float64), 0
    for part, given in _parts(logits, labels):
        values = part.cpu().double()
        highest, predicted = values.max(1)
        known = given.cpu() != IGNORED
        confidence, right = (highest - values.logsumexp(1)).exp(), (predicted == given.cpu()).double()
        if not known.all():
            confidence, right = confidence[known], right[known]
        confidence, right = confidence.flatten(), right.flatten()
        gaps += torch.bincount(torch.bucketize(confidence, edges), right - confidence, minlength=bins)
        count += len(right)
    if not count:
        raise ValueError("no examples to measure: at least one is needed")
    return gaps.abs().sum().item() / count


def _parts(first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Split both along their first dimension, so that what is made of one part stays small."""
    rows = max(1, MOST_VALUES * len(first) // max(first.numel(), 1))
    return zip(torch.split(first, rows), torch.split(second, rows), strict=True)


def server_metrics(logits: Tensor, labels: Tensor) -> tuple[dict[str, float], ClassReport]:
    """Return what the server measures on its test data beside a task's own measures, and what it counted of each class.

    The measures are ``balanced-accuracy``, ``macro-precision``, ``macro-recall`` and ``calibration-error`` (NaN for a
    model that has diverged); where each pixel has a label also ``dice`` and ``mean-iou``, over all pixels, and
    ``dice-per-image``.

    Parameters
    ----------
    logits, labels
        (N, K, *D) and (N, *D) on the CPU; a label of -100 is no class.

    Raises
    ------
    ValueError
        If the shapes do not fit, there are no labels, or one is not of the K classes.
    """
    predictions, num_classes = logits.max(1).indices, logits.shape[1]  # argmax, and many times faster over pixels
    report = _class_report(predictions, labels, num_classes)
    macro = macro_scores(report.counts)
    measures = {
        "balanced-accuracy": balanced_accuracy(report.counts),
        "macro-precision": macro.precision,
        "macro-recall": macro.recall,
        "calibration-error": _calibration_error(logits, labels, CALIBRATION_BINS),
    }
    if labels.dim() > 1 and num_classes > 1:
        measures["dice"] = foreground_dice(report.counts)
        measures["mean-iou"] = mean_iou(report.counts)
        measures["dice-per-image"] = dice_per_image(predictions, labels, num_classes)
    return measures, report


def _class_report(predictions: Tensor, labels: Tensor, num_classes: int) -> ClassReport:
    if predictions.shape == labels.shape and not (known := labels != IGNORED).all():
        predictions, labels = predictions[known], labels[known]
    if num_classes > MOST_CONFUSED:
        return ClassReport(class_counts(predictions, labels, num_classes), None)
    confusion = confusion_matrix(predictions, labels, num_classes)
    return ClassReport(ClassCounts(confusion.diagonal(), confusion.sum(1), confusion.sum(0)), confusion)
