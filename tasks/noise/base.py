"""Label noise, what all kinds have in common: wrong labels drawn from true ones, transition matrices, checks."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.base import Labels
from tasks.plugins import Registry

Features = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]


class NoiseError(ValueError):
    """A noise, noise-rate distribution or label file that does not fit; the message says what would."""


class NoiseWarning(UserWarning):
    """A noise that no method can see through, because another class is at least as likely as the true one."""


class LabelNoise(ABC):
    """How the labels of one client become wrong.

    A noise holds no random state: the same labels and an equal generator give the same result, so a client
    can be asked in any order and any process.
    """

    @abstractmethod
    def __call__(
        self,
        labels: Labels,
        rng: np.random.Generator,
        *,
        features: Features | None = None,
        ids: Labels | None = None,
    ) -> Labels:
        """Return the labels that the client is given.

        Parameters
        ----------
        labels
            True labels (n,) in [0, num_classes); for segmentation, masks (n, H, W).
        rng
            The client's own stream, the only source of randomness.
        features
            The examples as stored (n, ...); only noises that depend on them need it.
        ids
            Position of each example in the whole data set (n,); only noises read from a file need it.

        Returns
        -------
        A new int64 array shaped like ``labels``.

        Raises
        ------
        NoiseError
            If the labels do not fit, or something that this noise needs was not given.
        """

    def transition_matrix(self) -> Matrix | None:
        """Return T (K, K), T[i, j] = P(given j | true i), or None if it depends on more than the class."""
        return None

    def replace_features(self, features: Features, rng: np.random.Generator) -> tuple[Features, Labels]:
        """Return the examples that the client is given (n, ...), and which of them (m,) were replaced.

        Only open-set noise replaces any.
        """
        return features, np.empty(0, dtype=np.int64)


RUN_SETS = ("num_classes", "rate", "client", "class_names", "data_root")
NOISES = Registry("noise", LabelNoise, run_sets=RUN_SETS)


def check_share(name: str, value: float) -> None:
    """Raise ``NoiseError`` unless ``value`` is a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0.0 <= value <= 1.0:
        raise NoiseError(f"{name} must be a number between 0 and 1, not {value!r}")


def check_classes(num_classes: int) -> None:
    """Raise ``NoiseError`` unless there are at least two classes to confuse."""
    if num_classes < 2:
        raise NoiseError(f"label noise needs at least 2 classes, not {num_classes}")


def check_labels(labels: npt.NDArray[Any], num_classes: int, ndim: int = 1) -> Labels:
    """Return ``labels`` as int64.

    Raises
    ------
    NoiseError
        If they are not whole numbers in [0, num_classes), or do not have ``ndim`` dimensions.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise NoiseError(f"labels must be whole numbers, not {labels.dtype}")
    if labels.ndim != ndim:
        expected = "one label per example, shape (n,)" if ndim == 1 else "one mask per example, shape (n, H, W)"
        other = "for masks choose the noise 'masks'" if ndim == 1 else "for class labels choose e.g. 'symmetric'"
        raise NoiseError(f"expected {expected}, not shape {labels.shape}; {other}")
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise NoiseError(f"labels must lie in 0..{num_classes - 1}, but run from {labels.min()} to {labels.max()}")
    return labels.astype(np.int64)


def exact_count(rate: float, size: int) -> int:
    """Return the whole number nearest to ``rate * size``, halves up."""
    return int(rate * size + 0.5)


def draw_from_rows(probabilities: Matrix, uniforms: npt.NDArray[np.float64]) -> Labels:
    """Draw one column of each row (n, K) with the row's probabilities, by inverting its distribution function.

    ``uniforms`` (n,) are draws from [0, 1).
    """
    cumulative = probabilities.cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    columns: Labels = (cumulative <= uniforms[:, None]).sum(axis=1, dtype=np.int64)
    return columns


def realised_rate(clean: npt.NDArray[Any], noisy: npt.NDArray[Any]) -> float:
    """Return the share of labels that differ, in [0, 1]; 0 where there are none.

    >>> realised_rate(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]))
    0.25

    Raises
    ------
    NoiseError
        If the two have different shapes.
    """
    if clean.shape != noisy.shape:
        raise NoiseError(f"cannot compare labels of shape {clean.shape} and {noisy.shape}")
    return float(np.mean(clean != noisy)) if clean.size else 0.0


def dominant(matrix: Matrix) -> bool:
    """Tell whether each true class is given more often than any other one, T[i, i] > T[i, j].

    >>> dominant(np.array([[0.6, 0.4], [0.1, 0.9]])), dominant(np.array([[0.5, 0.5], [0.1, 0.9]]))
    (True, False)
    """
    return bool((np.diag(matrix) > _off_diagonal(matrix).max(axis=1)).all())


class Confusions(NamedTuple):
    """What the rows of a matrix M (K, K) say about their classes, (K,) each.

    ``kept`` is M's diagonal, ``strongest`` the largest other entry of each row, ``rival`` the class that it belongs to.
    """

    kept: Matrix
    strongest: Matrix
    rival: Labels


def confusions_of(matrix: Matrix) -> Confusions:
    """Return the confusions of a matrix (K, K).

    >>> confusions_of(np.array([[0.6, 0.4], [0.1, 0.9]])).strongest.tolist()
    [0.4, 0.1]
    """
    others = _off_diagonal(matrix)
    return Confusions(np.diag(matrix), others.max(axis=1), others.argmax(axis=1))


def first_other(num_classes: int) -> Labels:
    """Return for each class the first one that is another, (K,): 1, 0, 0, ..."""
    others: Labels = np.zeros(num_classes, dtype=np.int64)
    others[0] = 1
    return others


def check_table_size(num_classes: int, limit: int, noise: str) -> None:
    """Raise ``NoiseError`` if a noise that looks at every pair of classes is given more classes than ``limit``."""
    if num_classes > limit:
        raise NoiseError(
            f"{noise} looks at every pair of classes, which is possible for up to {limit} classes, and the task has "
            f"{num_classes}; choose symmetric, symmetric-all, pair-flip or asymmetric, which do not"
        )


def warn_unless_dominant(confusions: Confusions, rate: float, noise: str) -> None:
    """Warn with :class:`NoiseWarning` if T = (1 - rate) I + rate M does not give some true class most often."""
    right, wrong = (1 - rate) + rate * confusions.kept, rate * confusions.strongest
    if (right > wrong).all():
        return
    true = int((right - wrong).argmin())
    warnings.warn(
        f"{noise}: of the examples of class {true}, {wrong[true]:.0%} are labelled {confusions.rival[true]} and only "
        f"{right[true]:.0%} correctly; this client's labels alone cannot tell the two apart",
        NoiseWarning,
        stacklevel=2,
    )


def _off_diagonal(matrix: Matrix) -> Matrix:
    return np.where(np.eye(len(matrix), dtype=bool), -np.inf, matrix)
