"""Asymmetric label noise: chosen classes are each mistaken for one similar class; the published choices for CIFAR."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.base import Labels
from tasks.noise.base import NOISES, NoiseError
from tasks.noise.class_conditional import Replacement
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


@NOISES.register("asymmetric", "Patrini et al., CVPR 2017", "https://arxiv.org/abs/1609.03683")
@dataclass(frozen=True, kw_only=True)
class Asymmetric(Replacement):
    """Replace a share of the labels of chosen classes by one similar class each.

    The rate is the share within the classes that have a pair; all others keep their labels.

    Example: ``winnow run noise.name=asymmetric noise.args='pairs = [[1, 7], [3, 8]]'``

    Parameters
    ----------
    pairs
        Lists ``[true, given]`` of class numbers or, where the task names its classes, of names.
    """

    pairs: Pairs
    class_names: Sequence[str] = ()

    def targets(self) -> Labels:
        """Return the classes with those that have a pair replaced.

        Raises
        ------
        NoiseError
            If a pair names an unknown class, leads a class to itself, or a class has two pairs.
        """
        targets: Labels = np.arange(self.num_classes)
        numbers = {name: number for number, name in reversed(list(enumerate(self.class_names)))}
        for pair in self.pairs:
            if isinstance(pair, str) or len(pair) != 2:
                raise NoiseError(f"each of pairs must be [true class, given class], not {pair!r}")
            true, given = (self._class(name, numbers) for name in pair)
            if true == given or targets[true] != true:
                raise NoiseError(f"pairs must lead each class to one other class, but class {pair[0]!r} does not")
            targets[true] = given
        return targets

    def _class(self, name: int | str, numbers: Mapping[str, int]) -> int:
        if isinstance(name, str) and name in numbers:
            return numbers[name]
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


@NOISES.register("asymmetric-cifar10", "Patrini et al., CVPR 2017", "https://arxiv.org/abs/1609.03683")
def asymmetric_cifar10(num_classes: int, rate: float, exact: bool = True) -> Asymmetric:
    """Confuse similar classes of CIFAR-10: truck > automobile, bird > airplane, deer > horse, cat <> dog.

    Half of the classes are affected, so half the rate of all labels is wrong.

    Parameters
    ----------
    exact
        Whether the whole number of labels nearest to the rate is redrawn; false redraws each by chance.
    """
    _check_cifar(num_classes, 10)
    return Asymmetric(num_classes=num_classes, rate=rate, exact=exact, pairs=CIFAR10_PAIRS)


@NOISES.register("asymmetric-cifar100-block", "Ma et al. (APL), ICML 2020", "https://arxiv.org/abs/2006.13554")
def asymmetric_cifar100_block(num_classes: int, rate: float, exact: bool = True) -> Asymmetric:
    """Confuse CIFAR-100 classes in a circle within blocks of five numbers, as published codes do.

    The blocks are alphabetical, not superclasses: only 6 of the 100 pairs share a superclass.

    Parameters
    ----------
    exact
        Whether the whole number of labels nearest to the rate is redrawn; false redraws each by chance.
    """
    _check_cifar(num_classes, 100)
    pairs = cycle_within([i // 5 for i in range(100)])
    return Asymmetric(num_classes=num_classes, rate=rate, exact=exact, pairs=pairs)


@NOISES.register("asymmetric-cifar100-superclass", "Patrini et al., CVPR 2017", "https://arxiv.org/abs/1609.03683")
def asymmetric_cifar100_superclass(num_classes: int, rate: float, exact: bool = True) -> Asymmetric:
    """Confuse CIFAR-100 classes in a circle within their true superclass, as the papers describe it.

    Parameters
    ----------
    exact
        Whether the whole number of labels nearest to the rate is redrawn; false redraws each by chance.
    """
    _check_cifar(num_classes, 100)
    pairs = cycle_within(CIFAR100_SUPERCLASSES)
    return Asymmetric(num_classes=num_classes, rate=rate, exact=exact, pairs=pairs)


def _check_cifar(num_classes: int, expected: int) -> None:
    if num_classes != expected:
        raise NoiseError(
            f"this noise is made for the {expected} classes of CIFAR-{expected}, but the task has {num_classes}; "
            "choose 'asymmetric' with your own pairs"
        )
