"""Inference: what a task says so that its trained model can be used on files without labels.

A task that is :class:`Predictive` can be predicted with, and an exported model of it says by which numbers its inputs
are made. Tasks of images, texts and tables are; a task of your own is one if it has both methods.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.base import Task

IMAGES, TEXTS, TABLE = "images", "texts", "table"


@dataclass(frozen=True)
class Unlabelled:
    """One example without a label; ``line`` is where it begins in a table, 0 if it is a whole file.

    ``read`` returns its raw features, shaped as the task's inputs, or raises an error that says why it cannot be used.
    """

    line: int
    read: Callable[[], npt.NDArray[Any]]


@runtime_checkable
class Predictive(Protocol):
    """A task whose model can be used on files.

    ``preprocessing`` returns how files become inputs, with all numbers, as JSON; its ``kind`` is ``images``, ``texts``,
    ``table`` or a word of your own. ``unlabelled`` yields the examples of one file and raises ``DataError`` if the file
    cannot be read at all.
    """

    def preprocessing(self) -> dict[str, Any]:
        """Return how a file becomes an input."""

    def unlabelled(self, path: Path) -> Iterator[Unlabelled]:
        """Yield the examples in a file."""


def one_file(read: Callable[[], npt.NDArray[Any]]) -> Iterator[Unlabelled]:
    """Yield the only example of a file."""
    yield Unlabelled(0, read)


def raw_batch(examples: list[npt.NDArray[Any]]) -> Tensor:
    """Return raw examples of one shape as a batch (n, ...)."""
    return torch.from_numpy(np.stack(examples))


@torch.no_grad()
def sample_inputs(task: Task, count: int, generator: torch.Generator) -> Tensor:
    """Return made-up raw inputs (count, ...) with the type and range of a task's own, to try a model with.

    Numbers of words are those of any words, images are noise, other features are normally distributed.
    """
    shape = (count, *task.input_shape)
    vocabulary, brightest = getattr(task, "vocabulary", 0), getattr(task, "brightest", 0)
    if vocabulary:
        words = torch.randint(1, vocabulary, shape, generator=generator, dtype=torch.int32)
        words[:, (task.input_shape[0] + 1) // 2 :] = 0  # most texts are shorter than they may be
        return words
    if brightest:
        return torch.randint(0, brightest + 1, shape, generator=generator, dtype=torch.uint8)
    return torch.randn(shape, generator=generator)
