"""What folders and tables of images have in common: how an image becomes a model's input."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.base import DataError
from tasks.image import ImageTask, crop_and_flip
from tasks.site.base import SiteTask
from tasks.site.reading import Shape


class SiteImages(SiteTask, ImageTask):
    """Images of any size and format, held as uint8 (n, channels, size, size): n x channels x size^2 bytes.

    Parameters
    ----------
    size
        Pixels of a side; images are scaled to a square.
    channels
        1 (grey) or 3 (colour); see ``tasks/site/pictures.py`` for how files become either.
    mean, std
        Normalisation of each channel, for values from 0 to 1; the same at all sites.
    crop_padding
        Training images are padded by so many pixels, cropped and mirrored at random; 0 leaves them as they are.
    **declared
        See :class:`SiteTask`.

    Raises
    ------
    DataError
        If a declaration is out of its range.
    """

    default_model = "resnet18"

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        crop_padding: int = 0,
        **declared: Any,
    ) -> None:
        super().__init__(**declared)
        if not 1 <= size <= 4096:
            raise DataError(f"size = {size}: 1 to 4096 pixels a side are expected")
        if channels not in (1, 3):
            raise DataError(f"channels = {channels}: 1 (grey) or 3 (colour) is expected")
        if not 0 <= crop_padding <= size:
            raise DataError(f"crop_padding = {crop_padding}: 0 to size = {size} pixels are expected")
        self.size, self.channels, self.input_shape = size, channels, (channels, size, size)
        self._padding = crop_padding
        self.mean = _per_channel("mean", mean, 0.5, channels)  # type: ignore[misc]
        self.std = _per_channel("std", std, 0.25, channels)  # type: ignore[misc]
        if min(self.std) <= 0:
            raise DataError(f"std = {list(self.std)}: numbers above 0 are expected")

    @property
    def shape(self) -> Shape:
        """Shape of one example."""
        return Shape(self.input_shape, np.uint8)

    def augment(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Return randomly cropped and mirrored images if the run declares a padding."""
        return crop_and_flip(features, generator, self._padding) if self._padding else features


def _per_channel(name: str, given: Sequence[float], default: float, channels: int) -> tuple[float, ...]:
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    if values and (len(values) != channels or not all(type(value) in (int, float) for value in values)):
        raise DataError(f"{name} = {given!r}: a list of {channels} numbers is expected")
    return tuple(map(float, values)) or (default,) * channels
