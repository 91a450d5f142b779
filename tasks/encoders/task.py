"""Task with an encoder: the same examples, classes and names, but features in place of images or texts.

Only a small head is learned, ``linear`` by default. Labels, noise, methods, detection, attacks and the label audit are
those of the task.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import DataError, Examples, Labels, Task
from tasks.encoders.base import Encoder
from tasks.encoders.feature_store import FeatureStore, Plan, checked_features
from tasks.files import content_digest
from tasks.inference import Predictive, Unlabelled
from tasks.issues import ERROR, Issue, RunContext
from tasks.models import MODELS

VERSION = "1"
"""Of the way in which examples become features here; another one makes other files."""
SMALLEST_VARIANCE = 1e-12
"""Added to a vector's variance, so that features which are all equal become 0."""


class EncodedTask(Task):
    """A task whose examples are encoded once and kept; the head learns from features scaled for each example.

    Each vector is centred and scaled to deviation 1 over its own features, so that no site needs to know the features
    of another.

    Parameters
    ----------
    task
        The task of the examples.
    encoder, digest
        What encodes them, and its digest.
    store
        Where features are kept.
    declared
        Text of all declarations that the examples depend on.

    Raises
    ------
    DataError
        If the task's examples are not what the encoder takes.
    """

    default_model = "linear"

    def __init__(self, task: Task, encoder: Encoder, digest: str, store: FeatureStore, declared: str) -> None:
        if task.labels_pixels:
            raise DataError("an encoder makes one vector of an image, and this task has a label for each pixel")
        if task.encodes_as != encoder.reads:
            raise DataError(f"the encoder takes {encoder.reads}, and the examples of this task are no {encoder.reads}")
        self.inner, self.encoder, self._store, self._declared = task, encoder, store, declared
        self.class_names, self.input_shape = task.class_names, (encoder.width,)
        self.brings_own_data, self.has_own_noise = task.brings_own_data, task.has_own_noise
        self.encoder_digest = digest

    def train_examples(self) -> Examples:
        """Return the features (n, width) float16 of the training examples, mapped from a file.

        Raises
        ------
        DataError
            If the examples cannot be read or encoded, or the features not be kept.
        """
        return self._train

    def test_examples(self) -> Examples:
        """Return the features (n, width) float16 of the test examples, mapped from a file.

        Raises
        ------
        DataError
            If the examples cannot be read or encoded, or the features not be kept.
        """
        return self._test

    @property
    def raw(self) -> Task:
        """The task of the examples as they were read."""
        return self.inner

    def first_examples(self, count: int) -> Examples:
        """Return up to ``count`` training examples with their features, without encoding all others."""
        first = self.inner.first_examples(count)
        features = checked_features(self._encode(first.features), (len(first), self.encoder.width))
        return Examples(torch.from_numpy(features), first.labels)

    def train_labels(self) -> Labels:
        """Return the labels of all training examples, (n,), whether or not they are encoded yet."""
        found = self._kept("train")[1]
        return self.inner.train_labels() if found is None else found[1]

    def train_ids(self) -> npt.NDArray[np.int64]:
        """Return the id of each training example, (n,)."""
        return self.inner.train_ids()

    def example_names(self, ids: npt.NDArray[np.int64]) -> Sequence[str]:
        """Return what the owner of examples calls them."""
        return self.inner.example_names(ids)

    def groups(self) -> npt.NDArray[np.str_] | npt.NDArray[np.int64] | None:
        """Return where each training example comes from, or None if that is unknown."""
        return self.inner.groups()

    def has_test_examples(self) -> bool:
        """Tell whether there are clean test examples."""
        return self.inner.has_test_examples()

    def data_issues(self) -> list[Issue]:
        """Return what is odd but allowed about the training examples."""
        return self.inner.data_issues()

    def issues(self, context: RunContext) -> list[Issue]:
        """Return what such a run lacks or configures in vain because of its task."""
        found = super().issues(context)
        if context.settings.noise.name == "open-set":
            text = "open-set noise replaces images, and with task.encoder the examples are features"
            found.append(Issue(ERROR, "noise", text, "choose another noise, or leave the encoder out"))
        return found

    def check(self) -> None:
        """Raise ``DataError`` if the data cannot be there."""
        self.inner.check()

    def prepare(self, features: Tensor) -> Tensor:
        """Return the features (N, width) as float32, each vector with mean 0 and deviation 1; 0 where all are equal."""
        return F.layer_norm(features.float(), self.input_shape, eps=SMALLEST_VARIANCE)

    def build_model(self, name: str, args: str) -> nn.Module:
        """Build the named head ("auto" = ``linear``) for the features.

        Raises
        ------
        PluginError
            If it is unknown, its arguments do not fit, or it cannot take one row of features.
        """
        chosen = self.default_model if name == "auto" else name
        return MODELS.build(chosen, args, num_classes=self.num_classes, input_shape=self.input_shape)

    def preprocessing(self) -> dict[str, Any]:
        """Return how a file becomes features, with all numbers; see :mod:`tasks.inference`."""
        encoder = {"width": self.encoder.width, "sha256": self.encoder_digest}
        formula = "features as float16, then (feature - mean) / deviation over the features of an example"
        return {**self._readable.preprocessing(), "encoder": encoder, "formula": formula}

    def unlabelled(self, path: Path) -> Iterator[Unlabelled]:
        """Yield the raw examples of a file, which :meth:`encoded` turns into features."""
        return self._readable.unlabelled(path)

    def encoded(self, raw: Tensor) -> Tensor:
        """Return the features (n, width) of raw examples (n, ...), rounded to float16 as those in training are.

        Raises
        ------
        EncoderError
            If the encoder returns anything but finite features.
        """
        return torch.from_numpy(checked_features(self._encode(raw), (len(raw), self.encoder.width)))

    @property
    def _readable(self) -> Predictive:
        if not isinstance(self.inner, Predictive):
            raise DataError("this task does not say how its examples are read from files without labels")
        return self.inner

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the measures of ``logits`` (N, K) against true ``labels`` (N,)."""
        return self.inner.metrics(logits, labels)

    @cached_property
    def _train(self) -> Examples:
        return self._encoded("train")

    @cached_property
    def _test(self) -> Examples:
        return self._encoded("test")

    def _kept(self, part: str) -> tuple[str, tuple[Tensor, Labels] | None]:
        """Return the key of what was encoded, empty if only the examples tell it, and what is kept under it."""
        state = self.inner.data_state(part, self._store.folder)
        key = "" if state is None else self._key(part, state)
        return key, self._store.find(key) if key else None

    def _encoded(self, part: str) -> Examples:
        key, found = self._kept(part)
        if found is None:
            reader = self.inner.block_reader(part) if key else None
            if reader is None:
                raw = self.inner.train_examples() if part == "train" else self.inner.test_examples()
                content = {"features": raw.features.numpy(), "labels": raw.labels}
                key = key or self._key(part, content_digest("", content))
                reader = raw.labels, partial(_slice, raw.features)
            labels, block = reader
            title = f"Encoding the {'training' if part == 'train' else 'test'} examples"
            encode = lambda start, stop: self._encode(block(start, stop))
            found = self._store.make(key, labels, Plan(title, len(labels), self.encoder.width, encode))
        return Examples(*found)

    def _encode(self, raw: Tensor) -> Tensor:
        """Return the features (n, width) of raw examples (n, ...)."""
        batches = torch.split(raw, self.encoder.batch_size)
        return torch.cat([self.encoder.encode(self.inner.encoder_inputs(batch)) for batch in batches])

    def _key(self, part: str, state: str) -> str:
        facts = json.dumps([VERSION, self._declared, self.encoder_digest, part, state])
        return hashlib.sha256(facts.encode()).hexdigest()[:24]


def _slice(features: Tensor, start: int, stop: int) -> Tensor:
    return features[start:stop]
