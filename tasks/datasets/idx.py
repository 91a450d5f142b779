"""MNIST and Fashion-MNIST: 28x28 grey images from the four published IDX files, packed or not.

LeCun, Bottou, Bengio and Haffner, Proceedings of the IEEE 1998; Xiao, Rasul and Vollgraf, arXiv 2017. An IDX file is
four bytes (0, 0, the type, the number of dimensions), each dimension as a big-endian number of 4 bytes, the values.
"""

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from tasks.base import TASKS, DataError, Examples
from tasks.images import PublishedImages

UNSIGNED_BYTES = 8
PREFIX = {"train": "train", "test": "t10k"}


class IdxImages(PublishedImages):
    """Common part of MNIST and Fashion-MNIST: 60,000 training and 10,000 test images, 1x28x28, without augmentation.

    The files lie in ``folder``/raw, where torchvision puts them, or in ``folder``, with or without the ending .gz. See
    :class:`PublishedImages` for the parameters.
    """

    sizes: ClassVar[dict[str, int]] = {"train": 60_000, "test": 10_000}
    input_shape = (1, 28, 28)
    default_model = "mnist-cnn"

    def paths(self) -> list[Path]:
        """Return the four files; see :class:`PublishedImages`."""
        names = [f"{PREFIX[part]}-{kind}" for part in PREFIX for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        remedy = (
            f"fetch it: run  python -c \"from torchvision.datasets import {self.folder}; {self.folder}('.', "
            f'download=True)"  in {(self.data_path or Path("data")).absolute()}, or let task.data-path name the folder '
            f"that has {self.folder}/raw"
        )
        if self.data_path is None:
            raise DataError(f"{self.title} needs a data folder and none is given; {remedy}")
        root = self.data_path.absolute()
        for folder in (root / self.folder / "raw", root / self.folder):
            found = [_either(folder / name) for name in names]
            missing = [name for name, path in zip(names, found, strict=True) if path is None]
            if len(missing) < len(names):
                break
        else:
            folder, missing = root / self.folder / "raw", names
        if missing:
            expected = f"expected there, with or without the ending .gz: {', '.join(names)}"
            raise DataError(f"{self.title}: cannot read {', '.join(missing)} in {folder}; {expected}; {remedy}")
        return [path for path in found if path is not None]

    def read(self, part: str) -> Examples:
        """Return all images of ``part``; see :class:`PublishedImages`."""
        first = 2 * list(PREFIX).index(part)
        images, labels = (read_idx(path, self.title) for path in self.paths()[first : first + 2])
        where, count = self.paths()[first].parent, self.sizes[part]
        if images.shape != (count, *self.input_shape[1:]) or labels.shape != (count,):
            raise DataError(
                f"{self.title}: {count} images of 28x28 pixels and {count} labels are expected for {part}, the files "
                f"in {where} hold {images.shape} and {labels.shape}; delete and fetch them again"
            )
        if labels.max() >= self.num_classes:
            raise DataError(f"{self.title}: a label in {where} is {labels.max()}; 0 to {self.num_classes - 1} expected")
        return Examples(torch.from_numpy(images)[:, None], labels.astype(np.int64))


def _either(path: Path) -> Path | None:
    """Return a file that can be read, plain or packed, or None."""
    packed = path.with_name(f"{path.name}.gz")
    return next((found for found in (path, packed) if os.path.isfile(found) and os.access(found, os.R_OK)), None)


def read_idx(path: Path, title: str) -> npt.NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes, which may be packed by gzip.

    Raises
    ------
    DataError
        If it is no such file, or is cut short.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{title}: {path} cannot be read: {error}; delete it and fetch it again") from error
    start = 4 + 4 * dimensions
    if (zero, kind) != (0, UNSIGNED_BYTES) or len(content) - start != np.prod(shape, dtype=np.int64):
        raise DataError(
            f"{title}: {path} is damaged or no IDX file of bytes: it begins with {content[:4].hex(' ')}, and its "
            f"dimensions are {shape}, but {len(content) - start} bytes follow; delete it and fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


@TASKS.register("mnist", "LeCun et al., Proceedings of the IEEE 1998", "https://doi.org/10.1109/5.726791")
class Mnist(IdxImages):
    """70,000 handwritten digits, 1x28x28; needs the four IDX files, in MNIST/raw as torchvision puts them."""

    title, folder = "MNIST", "MNIST"
    class_names = tuple("0123456789")
    mean, std = (0.1307,), (0.3081,)


@TASKS.register("fashion-mnist", "Xiao et al., arXiv 2017", "https://arxiv.org/abs/1708.07747")
class FashionMnist(IdxImages):
    """70,000 pictures of clothes, 1x28x28; needs the four IDX files, in FashionMNIST/raw as torchvision puts them."""

    title, folder = "Fashion-MNIST", "FashionMNIST"
    class_names = (
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
    mean, std = (0.2860,), (0.3530,)
