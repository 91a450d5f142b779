"""From a list of what there is to examples in memory; what cannot be used is noted and left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tasks.base import Examples
from tasks.site.problems import Problem, UnusableError

Pair = tuple[npt.NDArray[Any], npt.NDArray[np.int64] | int]


@dataclass(frozen=True)
class Item:
    """One example before it is read.

    ``name`` is unique among the examples of a site; ``read`` returns features and label, or raises ``UnusableError``;
    ``group`` says where it comes from, if that is known; ``place`` is what a problem is told of, if not the name.
    """

    name: str
    read: Callable[[], Pair]
    group: str = ""
    place: str = ""


@dataclass(frozen=True)
class Shape:
    """Shape and type of one example's features, and the shape of its label."""

    features: tuple[int, ...]
    dtype: npt.DTypeLike
    label: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reading:
    """Examples in memory, their names and groups in the same order, and what was left out."""

    examples: Examples
    names: tuple[str, ...]
    groups: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def total(self) -> int:
        """Number of examples that were found, usable or not."""
        return len(self.names) + len(self.problems)


def read_items(items: Sequence[Item], shape: Shape, known: Sequence[Problem] = ()) -> Reading:
    """Read all items, once each, into one block of memory; ``known`` are problems that were found before."""
    features = np.empty((len(items), *shape.features), shape.dtype)
    labels = np.empty((len(items), *shape.label), np.int64)
    kept: list[Item] = []
    problems = list(known)
    for item in items:
        try:
            features[len(kept)], labels[len(kept)] = item.read()
            kept.append(item)
        except UnusableError as problem:
            problems.append(Problem(item.place or item.name, str(problem)))
    examples = Examples(torch.from_numpy(features[: len(kept)]), labels[: len(kept)])
    return Reading(examples, tuple(item.name for item in kept), tuple(item.group for item in kept), tuple(problems))
