"""Feature store: the encoded examples of one data set in a file, float16, mapped and not read into memory."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.base import Labels
from tasks.encoders.base import EncoderError
from tasks.example_store import Block, ExampleStore, Rows, RowShape

Features = npt.NDArray[np.float16]
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Plan:
    """What is to be encoded: ``count`` examples to ``width`` features each; ``title`` is for the progress bar.

    ``encode`` returns the features (m, width) of the examples ``start`` to ``stop`` - 1.
    """

    title: str
    count: int
    width: int
    encode: Callable[[int, int], Tensor]


class FeatureStore(ExampleStore):
    """Files of features in a folder that only this user may enter; see :class:`ExampleStore`."""

    kind = "features"
    title = "encoded examples"
    error = EncoderError

    def find(self, key: str) -> tuple[Tensor, Labels] | None:
        """Return the features (n, width) and labels that were kept under a key, or None."""
        found = self.kept(key)
        return None if found is None else (found.features, found.labels)

    def make(self, key: str, labels: Labels, plan: Plan) -> tuple[Tensor, Labels]:
        """Encode what is not encoded yet, keep it, and return features and labels.

        Raises
        ------
        EncoderError
            If the encoder returns anything but finite features, or the file cannot be written.
        """

        def encoded(start: int, stop: int) -> Block:
            return checked_features(plan.encode(start, stop), (stop - start, plan.width)), labels[start:stop], ()

        found = self.keep(key, Rows(plan.title, plan.count, RowShape((plan.width,), np.float16), encoded))
        return found.features, found.labels


def checked_features(features: Tensor, shape: tuple[int, int]) -> Features:
    """Return features as float16.

    Raises
    ------
    EncoderError
        If they have another shape, or are not finite in float16.
    """
    if tuple(features.shape) != shape:
        raise EncoderError(f"the encoder must return features of shape {shape}, got {tuple(features.shape)}")
    if not bool(features.isfinite().all()):
        raise EncoderError("the encoder returned features that are no numbers (NaN or infinite)")
    largest = float(features.abs().max())
    if largest > LARGEST:
        raise EncoderError(f"the encoder returned a feature of {largest:.3g}; float16 ends at {LARGEST:g}")
    return features.to(torch.float16).numpy()
