"""What image classification tasks share, and the smallest of them: handwritten digits.

Images stay uint8 (N, C, H, W) until a batch is prepared on its device.
"""

from functools import cache, cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tasks.base import TASKS, Examples, Task
from tasks.models import MODELS


class ImageTask(Task):
    """Classification of uint8 images: normalised by constants, learned by a model from ``MODELS``.

    A subclass sets ``mean`` and ``std``, one number per channel, for images scaled to [0, 1], and ``brightest``,
    the stored value that becomes 1.
    """

    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    brightest: ClassVar[int] = 255

    def prepare(self, features: Tensor) -> Tensor:
        """Scale uint8 images (N, C, H, W) to [0, 1] and normalise each channel; float32, on the same device."""
        gain, offset = _normalisation(self.mean, self.std, self.brightest, features.device)
        return features * gain + offset

    def build_model(self, name: str, args: str) -> nn.Module:
        """Build the named model ("auto" = ``default_model``) for this task's images and classes.

        Raises
        ------
        PluginError
            If the model is unknown, its arguments do not fit, or it cannot take images of this size.
        """
        chosen = self.default_model if name == "auto" else name
        return MODELS.build(chosen, args, num_classes=self.num_classes, input_shape=self.input_shape)


@cache
def _normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], brightest: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return gain and offset, each (C, 1, 1); kept, because a captured CUDA graph may not copy from the host."""
    gain = [[[1 / (brightest * spread)]] for spread in std]
    offset = [[[-centre / spread]] for centre, spread in zip(mean, std, strict=True)]
    with torch.inference_mode(False):  # evaluation may come first, and training cannot differentiate its tensors
        return torch.tensor(gain, device=device), torch.tensor(offset, device=device)


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Shift each image by up to ``padding`` pixels and mirror half of the images, at random.

    Each image is padded with zeros on all sides, cut back to its size at a uniformly drawn place, and mirrored left
    to right with probability 1/2. The whole batch is one gather.

    Parameters
    ----------
    images
        Any type, (N, C, H, W), on any device.
    generator
        Source of the draws. On the images' device nothing waits for the host; on another, 3 N numbers are copied.

    Returns
    -------
    Tensor
        New images of the same shape, type and device.
    """
    count, channels, height, width = images.shape
    source, device = generator.device, images.device
    shifts = torch.randint(2 * padding + 1, (2, count, 1), generator=generator, device=source).to(device)
    mirrored = torch.randint(2, (count, 1), generator=generator, device=source).to(device).bool()
    column = torch.arange(width, device=device)
    rows = shifts[0] + torch.arange(height, device=device)
    columns = shifts[1] + torch.where(mirrored, column.flip(0), column)
    padded = nn.functional.pad(images, (padding,) * 4).flatten(2)
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    return padded.gather(2, places.flatten(1)[:, None].expand(-1, channels, -1)).view(images.shape)


@TASKS.register("digits", "Alpaydin and Kaynak, Kybernetika 1998")
class Digits(ImageTask):
    """1,797 handwritten digits of 8x8 pixels, part of scikit-learn: no download, runs in seconds.

    A fixed split by class gives 1,437 training and 360 test images in every run. Source: Alpaydin and Kaynak,
    Kybernetika 1998.
    """

    class_names = tuple("0123456789")
    default_model = "digits-cnn"
    input_shape = (1, 8, 8)
    mean, std, brightest = (0.0,), (1.0,), 16

    def train_examples(self) -> Examples:
        """Return the 1,437 training images, uint8 (1437, 1, 8, 8) with values 0 to 16."""
        return self._split[0]

    def test_examples(self) -> Examples:
        """Return the 360 test images, uint8 (360, 1, 8, 8) with values 0 to 16."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Examples, Examples]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images, labels = digits.images, digits.target
        everything = Examples(torch.from_numpy(images.astype(np.uint8))[:, None], labels.astype(np.int64))
        train, test = train_test_split(np.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
        return everything.take(np.sort(train)), everything.take(np.sort(test))
