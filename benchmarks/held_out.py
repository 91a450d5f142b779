"""Task that holds out training examples: a learning rate is chosen on them, and not on test data.

A plug-in task around a named one, with or without an encoder:
``task.name = "benchmarks.held_out:HeldOut"``, ``task.args = 'task = "cifar-10", part = "validation"'``.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.base import Examples, Labels, Task
from tasks.client_data import load_task
from tasks.seeds import rng
from tasks.settings import TaskSettings

PARTS = ("validation", "test")


class HeldOut(Task):
    """A task measured on a share of its training examples, on which then nobody trains, or on its test data.

    Parameters
    ----------
    task, task_args, encoder, features
        The task, its arguments, its encoder ("" = none) and the folder that keeps its features ("" = the user's cache).
    part
        "validation": the clients share the training examples that are left. "test": they share all of them, and the
        model is measured on the task's test data.
    share
        Share of the training examples that is held out, the same ones in every run.

    Raises
    ------
    ValueError
        If there is no such part, or the share is not between 0 and 1.
    """

    def __init__(
        self,
        data_path: Path,
        task: str,
        task_args: str = "",
        encoder: str = "",
        features: str = "",
        part: str = "validation",
        share: float = 0.1,
    ) -> None:
        if part not in PARTS:
            raise ValueError(f"part = {part!r}: expected one of {', '.join(PARTS)}")
        if not 0 < share < 1:
            raise ValueError(f"share = {share}: a number between 0 and 1 expected")
        named = TaskSettings(name=task, args=task_args, data_path=str(data_path), encoder=encoder, cache_path=features)
        self.inner, self._part, self._share = load_task(named), part, share
        self.class_names, self.input_shape = self.inner.class_names, self.inner.input_shape
        self.default_model = self.inner.default_model
        self.has_smooth_inputs = self.inner.has_smooth_inputs
        self.encoder_digest = self.inner.encoder_digest

    def train_examples(self) -> Examples:
        """Return the examples that the clients share."""
        return self._train

    def train_labels(self) -> Labels:
        """Return their labels, (n,)."""
        labels = self.inner.train_labels()
        return labels if self._part == "test" else labels[self._places[0]]

    def train_ids(self) -> npt.NDArray[np.int64]:
        """Return their places in the published order, (n,)."""
        ids = self.inner.train_ids()
        return ids if self._part == "test" else ids[self._places[0]]

    def test_examples(self) -> Examples:
        """Return the examples on which the model is measured."""
        return self._test

    def check(self) -> None:
        """Raise ``DataError`` if the data cannot be there."""
        self.inner.check()

    def prepare(self, features: Tensor) -> Tensor:
        """Return a batch as the task's model takes it."""
        return self.inner.prepare(features)

    def augment(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Return a batch changed as the task does it."""
        return self.inner.augment(features, generator)

    def build_model(self, name: str, args: str) -> nn.Module:
        """Build a model for the task."""
        return self.inner.build_model(name, args)

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Places of the training examples that are shared, and of those that are held out."""
        count = len(self.inner.train_labels())
        shuffled = rng(0, "held out").permutation(count)
        held_out = round(self._share * count)
        return np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out])

    @cached_property
    def _train(self) -> Examples:
        everything = self.inner.train_examples()
        return everything if self._part == "test" else everything.take(self._places[0])

    @cached_property
    def _test(self) -> Examples:
        if self._part == "test":
            return self.inner.test_examples()
        return self.inner.train_examples().take(self._places[1])
