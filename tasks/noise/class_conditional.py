"""Class-conditional label noise: it depends on the true class only, and redraws a share of the labels from matrix rows.

Asymmetric noise is the kind where chosen classes are each mistaken for one similar class.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.base import Labels
from tasks.noise.base import (
    NOISES,
    Features,
    LabelNoise,
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
from tasks.plugins import did_you_mean

Pairs = Sequence[Sequence[int | str]]

CIFAR10_PAIRS = ((9, 1), (2, 0), (4, 7), (3, 5), (5, 3))
"""truck > automobile, bird > airplane, deer > horse, cat <> dog."""

CIFAR100_SUPERCLASSES = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
    *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
    *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
    *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)
"""The superclass of each of CIFAR-100's 100 classes (Krizhevsky, 2009)."""


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


@NOISES.register("asymmetric", "Patrini et al., CVPR 2017")
@dataclass(frozen=True, kw_only=True)
class Asymmetric(ClassConditional):
    """Replace a share of the labels of chosen classes by one similar class each.

    ``pairs`` lists ``[true, given]`` as numbers or, where the task names its classes, as names. The rate is the
    share within the classes that have a pair; all others keep their labels.
    """

    pairs: Pairs
    class_names: Sequence[str] = ()

    def redraw_matrix(self) -> Matrix:
        """Return the identity with one row replaced per pair.

        Raises
        ------
        NoiseError
            If a pair names an unknown class, leads a class to itself, or a class has two pairs.
        """
        matrix = np.eye(self.num_classes)
        for pair in self.pairs:
            if isinstance(pair, str) or len(pair) != 2:
                raise NoiseError(f"each of pairs must be [true class, given class], not {pair!r}")
            true, given = (self._class(name) for name in pair)
            if true == given or matrix[true, true] == 0:
                raise NoiseError(f"pairs must lead each class to one other class, but class {pair[0]!r} does not")
            matrix[true] = np.eye(self.num_classes)[given]
        return matrix

    def _class(self, name: int | str) -> int:
        if name in self.class_names:
            return list(self.class_names).index(str(name))
        if isinstance(name, int) and 0 <= name < self.num_classes:
            return name
        raise NoiseError(
            f"unknown class {name!r} in pairs{did_you_mean(str(name), self.class_names)} or 0..{self.num_classes - 1}"
        )


def cycle_within(groups: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the pairs that lead each class to the next one of its group and the last to the first.

    >>> cycle_within([0, 1, 0, 1, 0])
    ((0, 2), (1, 3), (2, 4), (3, 1), (4, 0))
    """
    members = {group: [i for i, other in enumerate(groups) if other == group] for group in groups}
    following = {group: dict(zip(ids, ids[1:] + ids[:1], strict=True)) for group, ids in members.items()}
    return tuple((i, following[group][i]) for i, group in enumerate(groups))


@NOISES.register("asymmetric-cifar10", "Patrini et al., CVPR 2017")
def asymmetric_cifar10(num_classes: int, rate: float, exact: bool = True) -> Asymmetric:
    """Confuse similar classes of CIFAR-10: truck > automobile, bird > airplane, deer > horse, cat <> dog.

    Half of the classes are affected, so half the rate of all labels is wrong.
    """
    _check_cifar(num_classes, 10)
    return Asymmetric(num_classes=num_classes, rate=rate, exact=exact, pairs=CIFAR10_PAIRS)


@NOISES.register("asymmetric-cifar100-block", "Ma et al. (APL), ICML 2020")
def asymmetric_cifar100_block(num_classes: int, rate: float, exact: bool = True) -> Asymmetric:
    """Confuse CIFAR-100 classes in a circle within blocks of five numbers, as published codes do.

    The blocks are alphabetical, not superclasses: only 6 of the 100 pairs share a superclass.
    """
    _check_cifar(num_classes, 100)
    pairs = cycle_within([i // 5 for i in range(100)])
    return Asymmetric(num_classes=num_classes, rate=rate, exact=exact, pairs=pairs)


@NOISES.register("asymmetric-cifar100-superclass", "Patrini et al., CVPR 2017")
def asymmetric_cifar100_superclass(num_classes: int, rate: float, exact: bool = True) -> Asymmetric:
    """Confuse CIFAR-100 classes in a circle within their true superclass, as the papers describe it."""
    _check_cifar(num_classes, 100)
    pairs = cycle_within(CIFAR100_SUPERCLASSES)
    return Asymmetric(num_classes=num_classes, rate=rate, exact=exact, pairs=pairs)


def _check_cifar(num_classes: int, expected: int) -> None:
    if num_classes != expected:
        raise NoiseError(
            f"this noise is made for the {expected} classes of CIFAR-{expected}, but the task has {num_classes}; "
            "choose 'asymmetric' with your own pairs"
        )
