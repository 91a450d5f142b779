"""Class-conditional label noise: it depends on the true class only, and redraws a share of the labels from matrix rows.

Where the rows have a short form (all classes alike, one class each) no matrix is written down.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tasks.arguments import check_flag
from tasks.base import Labels
from tasks.noise.base import (
    NOISES,
    Confusions,
    Features,
    LabelNoise,
    Matrix,
    NoiseError,
    check_classes,
    check_labels,
    check_share,
    check_table_size,
    confusions_of,
    draw_from_rows,
    exact_count,
    first_other,
    warn_unless_dominant,
)

MAX_TABLE_CLASSES = 4_000
"""With so many classes a matrix takes 128 MB, and some seconds for each client."""


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
    otherwise each one is redrawn with probability ``rate``. M is written down only where a noise does not override
    ``confusions`` and ``redraw``, and then for at most ``MAX_TABLE_CLASSES`` classes; the built-in noises except
    ``matrix`` need time and memory that grow with the examples and the classes only.

    Parameters
    ----------
    exact
        Whether the whole number of labels nearest to the rate is redrawn; false redraws each by chance.
    """

    num_classes: int
    rate: float
    exact: bool = True

    def __post_init__(self) -> None:
        check_classes(self.num_classes)
        check_share("the noise rate", self.rate)
        check_flag("exact", self.exact)
        warn_unless_dominant(self.confusions(), self.rate, f"{type(self).__name__} noise at rate {self.rate:.3g}")

    @abstractmethod
    def redraw_matrix(self) -> Matrix:
        """Return M (K, K): row i is the distribution from which a label of true class i is drawn anew."""

    @cached_property
    def _table(self) -> Matrix:
        check_table_size(self.num_classes, MAX_TABLE_CLASSES, f"{type(self).__name__} noise")
        return self.redraw_matrix()

    def confusions(self) -> Confusions:
        """Return what the rows of M say about their classes."""
        return confusions_of(self._table)

    def redraw(self, labels: Labels, uniforms: npt.NDArray[np.float64]) -> Labels:
        """Draw labels (m,) anew, each from its class's row of M, by inverting its distribution function.

        ``uniforms`` (m,) are draws from [0, 1).
        """
        return draw_from_rows(self._table[labels], uniforms)

    def transition_matrix(self) -> Matrix:
        """Return T = (1 - rate) I + rate M, (K, K)."""
        return (1 - self.rate) * np.eye(self.num_classes) + self.rate * self.redraw_matrix()

    def __call__(
        self, labels: Labels, rng: np.random.Generator, *, features: Features | None = None, ids: Labels | None = None
    ) -> Labels:
        """Return the given labels (n,); features and ids are not needed."""
        noisy = check_labels(labels, self.num_classes)
        changeable = np.flatnonzero(self.confusions().kept[noisy] < 1)
        chosen = self._choose(changeable, rng)
        noisy[chosen] = self.redraw(noisy[chosen], rng.random(len(chosen)))
        return noisy

    def _choose(self, candidates: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        if self.exact:
            return rng.choice(candidates, exact_count(self.rate, len(candidates)), replace=False)
        return candidates[rng.random(len(candidates)) < self.rate]


@NOISES.register("symmetric", "Patrini et al., CVPR 2017", "https://arxiv.org/abs/1609.03683")
@dataclass(frozen=True, kw_only=True)
class Symmetric(ClassConditional):
    """Replace a share of the labels by any other class, all equally likely."""

    def redraw_matrix(self) -> Matrix:
        """Return 1 / (K - 1) off the diagonal, 0 on it."""
        return (1 - np.eye(self.num_classes)) / (self.num_classes - 1)

    def confusions(self) -> Confusions:
        """Return that all other classes are equally strong rivals."""
        strongest = np.full(self.num_classes, 1 / (self.num_classes - 1))
        return Confusions(np.zeros(self.num_classes), strongest, first_other(self.num_classes))

    def redraw(self, labels: Labels, uniforms: npt.NDArray[np.float64]) -> Labels:
        """Draw one of the K - 1 other classes, which are counted without the true one."""
        drawn = evenly(self.num_classes - 1, uniforms)
        return drawn + (drawn >= labels)


@NOISES.register("symmetric-all", "Xu et al. (FedCorr), CVPR 2022", "https://arxiv.org/abs/2204.04677")
@dataclass(frozen=True, kw_only=True)
class SymmetricAll(ClassConditional):
    """Redraw a share of the labels from all classes, the true one included.

    The rate of wrong labels is therefore ``rate * (K - 1) / K``. As published, each label is redrawn by chance.
    """

    exact: bool = False

    def redraw_matrix(self) -> Matrix:
        """Return 1 / K everywhere."""
        return np.full((self.num_classes, self.num_classes), 1 / self.num_classes)

    def confusions(self) -> Confusions:
        """Return that all classes are equally likely."""
        likely = np.full(self.num_classes, 1 / self.num_classes)
        return Confusions(likely, likely, first_other(self.num_classes))

    def redraw(self, labels: Labels, uniforms: npt.NDArray[np.float64]) -> Labels:
        """Draw one of all K classes."""
        return evenly(self.num_classes, uniforms)


def evenly(count: int, uniforms: npt.NDArray[np.float64]) -> Labels:
    """Draw whole numbers below ``count`` (m,), all equally likely.

    The steps of the distribution function are added up as ``draw_from_rows`` adds up a row, so that both draw the same.
    """
    steps = np.full(count, 1 / count).cumsum()
    drawn: Labels = np.searchsorted(steps / steps[-1], uniforms, side="right").astype(np.int64)
    return drawn


class Replacement(ClassConditional):
    """Class-conditional noise that has one wrong class for each true class that it changes."""

    @abstractmethod
    def targets(self) -> Labels:
        """Return the class that each class becomes, (K,); itself where it keeps its labels."""

    def redraw_matrix(self) -> Matrix:
        """Return a matrix with a single 1 in each row."""
        return np.eye(self.num_classes)[self.targets()]

    def confusions(self) -> Confusions:
        """Return that a class either keeps all its labels or loses all to its target."""
        targets = self.targets()
        kept = targets == np.arange(self.num_classes)
        rivals = np.where(kept, first_other(self.num_classes), targets)
        return Confusions(kept.astype(np.float64), (~kept).astype(np.float64), rivals)

    def redraw(self, labels: Labels, uniforms: npt.NDArray[np.float64]) -> Labels:
        """Replace each label by its target."""
        return self.targets()[labels]


@NOISES.register("pair-flip", "Han et al. (Co-teaching), NeurIPS 2018", "https://arxiv.org/abs/1804.06872")
@dataclass(frozen=True, kw_only=True)
class PairFlip(Replacement):
    """Replace a share of the labels by the neighbouring class.

    The given label is ``(label + step) mod K``.

    Parameters
    ----------
    step
        How many classes further the wrong label lies: 1 in the paper, -1 in FNBench.
    """

    step: int = 1

    def targets(self) -> Labels:
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
        return (np.arange(self.num_classes) + self.step) % self.num_classes


@NOISES.register("matrix")
@dataclass(frozen=True, kw_only=True)
class MatrixNoise(ClassConditional):
    """Redraw a share of the labels from the rows of your own matrix; with rate 1 it is the transition matrix.

    K is at most ``MAX_TABLE_CLASSES``; it is 2 in the example.

    Example: ``winnow run noise.name=matrix noise.args='matrix = [[0.8, 0.2], [0.3, 0.7]]'``

    Parameters
    ----------
    matrix
        K rows of K probabilities: row i is the distribution of the given label for true class i.
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
