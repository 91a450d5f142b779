"""Noise that depends on the true class only: a share of the labels is drawn anew from a row of a matrix."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.noise.base import (
    NOISES,
    Features,
    LabelNoise,
    Labels,
    Matrix,
    NoiseError,
    check_classes,
    check_flag,
    check_labels,
    check_share,
    draw_from_rows,
    exact_count,
    warn_unless_dominant,
)


@NOISES.register("none")
@dataclass(frozen=True, kw_only=True)
class NoNoise(LabelNoise):
    """Keep every label."""

    num_classes: int

    def __call__(
        self, labels: Labels, rng: np.random.Generator, *, features: Features | None = None, ids: Labels | None = None
    ) -> Labels:
        """Return a copy of the labels, whatever their shape."""
        return np.array(labels, dtype=np.int64)

    def transition_matrix(self) -> Matrix:
        """Return the identity (K, K)."""
        return np.eye(self.num_classes)


@dataclass(frozen=True, kw_only=True)
class ClassConditional(LabelNoise):
    """Redraw a share ``rate`` of the labels, each from its true class's row of a matrix M: T = (1 - rate) I + rate M.

    The share is taken of the labels that M can change. ``exact`` redraws the whole number of them nearest to it;
    otherwise each one is redrawn with probability ``rate``.
    """

    num_classes: int
    rate: float
    exact: bool = True

    def __post_init__(self) -> None:
        check_classes(self.num_classes)
        check_share("the noise rate", self.rate)
        check_flag("exact", self.exact)
        warn_unless_dominant(self.transition_matrix(), f"{type(self).__name__} noise at rate {self.rate:.3g}")

    @abstractmethod
    def redraw_matrix(self) -> Matrix:
        """Return M (K, K): row i is the distribution from which a label of true class i is drawn anew."""

    def transition_matrix(self) -> Matrix:
        """Return T = (1 - rate) I + rate M, (K, K)."""
        return (1 - self.rate) * np.eye(self.num_classes) + self.rate * self.redraw_matrix()

    def __call__(
        self, labels: Labels, rng: np.random.Generator, *, features: Features | None = None, ids: Labels | None = None
    ) -> Labels:
        """Return the given labels (n,); features and ids are not needed."""
        noisy = check_labels(labels, self.num_classes)
        matrix = self.redraw_matrix()
        changeable = np.flatnonzero(np.diag(matrix)[noisy] < 1)
        chosen = self._choose(changeable, rng)
        noisy[chosen] = draw_from_rows(matrix[noisy[chosen]], rng.random(len(chosen)))
        return noisy

    def _choose(self, candidates: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        if self.exact:
            return rng.choice(candidates, exact_count(self.rate, len(candidates)), replace=False)
        return candidates[rng.random(len(candidates)) < self.rate]


@NOISES.register("symmetric", "Patrini et al., CVPR 2017")
@dataclass(frozen=True, kw_only=True)
class Symmetric(ClassConditional):
    """Replace a share of the labels by any other class, all equally likely."""

    def redraw_matrix(self) -> Matrix:
        """Return 1 / (K - 1) off the diagonal, 0 on it."""
        return (1 - np.eye(self.num_classes)) / (self.num_classes - 1)


@NOISES.register("symmetric-all", "Xu et al. (FedCorr), CVPR 2022")
@dataclass(frozen=True, kw_only=True)
class SymmetricAll(ClassConditional):
    """Redraw a share of the labels from all classes, the true one included.

    The rate of wrong labels is therefore ``rate * (K - 1) / K``. As published, each label is redrawn by chance.
    """

    exact: bool = False

    def redraw_matrix(self) -> Matrix:
        """Return 1 / K everywhere."""
        return np.full((self.num_classes, self.num_classes), 1 / self.num_classes)


@NOISES.register("pair-flip", "Han et al. (Co-teaching), NeurIPS 2018")
@dataclass(frozen=True, kw_only=True)
class PairFlip(ClassConditional):
    """Replace a share of the labels by the neighbouring class.

    The given label is ``(label + step) mod K``. ``step`` is 1 in the paper, -1 in Jiang et al. (FNBench), 2025.
    """

    step: int = 1

    def redraw_matrix(self) -> Matrix:
        """Return the cyclic shift by ``step``.

        Raises
        ------
        NoiseError
            If the shift is not whole, or leads every class to itself.
        """
        if type(self.step) is not int:
            raise NoiseError(f"step must be a whole number, not {self.step!r}")
        if self.step % self.num_classes == 0:
            raise NoiseError(f"step = {self.step} leads each of the {self.num_classes} classes to itself; choose 1")
        return np.roll(np.eye(self.num_classes), self.step, axis=1)


@NOISES.register("matrix")
@dataclass(frozen=True, kw_only=True)
class MatrixNoise(ClassConditional):
    """Redraw a share of the labels from the rows of your own matrix; with rate 1 it is the transition matrix.

    ``matrix`` has K rows of K probabilities; row i is the distribution of the given label for true class i.
    """

    matrix: Sequence[Sequence[float]]

    def redraw_matrix(self) -> Matrix:
        """Return the matrix.

        Raises
        ------
        NoiseError
            If it is not K x K, has a negative entry, or a row that does not add up to 1.
        """
        size = self.num_classes
        if len(self.matrix) != size or any(len(row) != size for row in self.matrix):
            lengths = sorted({len(row) for row in self.matrix})
            raise NoiseError(f"matrix must be {size} rows of {size}, not {len(self.matrix)} rows of {lengths}")
        matrix = np.array(self.matrix, dtype=np.float64)
        if not (matrix >= 0).all():
            raise NoiseError("matrix must have no negative and no undefined entry")
        for row, total in enumerate(matrix.sum(axis=1)):
            if not np.isclose(total, 1, atol=1e-6):
                raise NoiseError(f"each row of matrix must add up to 1, but row {row} adds up to {total:g}")
        return matrix
