"""Confident learning: which labels a model has reason to doubt (Northcutt, Jiang, Chuang, JAIR 2021).

``beliefs`` (n, K) are the probabilities that a model gives to the K classes of n examples, each row summing to one;
``labels`` (n,) are the given labels, 0 to K-1.
"""

import numpy as np
import numpy.typing as npt

from tasks.base import Labels

Beliefs = npt.NDArray[np.float64]
ROUNDING = 1e-6  # equal probabilities that differ in their last bits count as equal


def class_thresholds(beliefs: Beliefs, labels: Labels) -> Beliefs:
    """Return how sure the model is of each class where it is the given label, on average, (K,).

    Infinite for a class that is no example's label: nothing says what would be sure there.
    """
    counts = np.bincount(labels, minlength=beliefs.shape[1])
    sums = np.bincount(labels, beliefs[np.arange(len(labels)), labels], beliefs.shape[1])
    thresholds: Beliefs = np.where(counts, sums / np.maximum(counts, 1), np.inf)
    return thresholds


def confident_joint(beliefs: Beliefs, labels: Labels) -> Labels:
    """Count the examples by given label (row) and by the label of which the model is confident (column), (K, K).

    The model is confident of a class where it reaches the class's threshold, and of the likeliest such class if there
    are several. Examples without one are not counted.
    """
    reached = np.where(beliefs >= class_thresholds(beliefs, labels) - ROUNDING, beliefs, -1.0)
    sure = reached.max(1) >= 0
    joint: Labels = np.zeros((beliefs.shape[1],) * 2, np.int64)
    np.add.at(joint, (labels[sure], reached.argmax(1)[sure]), 1)
    return joint


def estimated_joint(beliefs: Beliefs, labels: Labels) -> Beliefs:
    """Estimate the joint distribution of given label (row) and true label (column), (K, K), summing to one.

    Each row of the confident joint is scaled to the share of its given label. A row without a count stands for a label
    that is right, as there is no evidence against it.
    """
    joint = confident_joint(beliefs, labels).astype(np.float64)
    empty = joint.sum(1) == 0
    joint[empty, empty] = 1.0
    shares = np.bincount(labels, minlength=len(joint)) / len(labels)
    scaled: Beliefs = joint / joint.sum(1, keepdims=True) * shares[:, None]
    return scaled


def suspicion(beliefs: Beliefs, labels: Labels) -> Beliefs:
    """Return how much speaks against each given label, (n,), from 0 (nothing) to 1.

    (1 - p_given + max p_other) / 2: one minus the normalised margin. Above 1/2 the model prefers another label.
    """
    rows = np.arange(len(labels))
    others = beliefs.copy()
    others[rows, labels] = 0.0
    doubts: Beliefs = (1 - beliefs[rows, labels] + others.max(1)) / 2
    return doubts
