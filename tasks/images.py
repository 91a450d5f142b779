"""Image classification tasks: what they have in common, handwritten digits, CIFAR-10 and CIFAR-100.

Images stay uint8 (N, C, H, W) until a batch is prepared on its device. CIFAR is read from the published Python files
(Krizhevsky, University of Toronto, 2009).
"""

import os
from abc import abstractmethod
from collections.abc import Iterator
from functools import cache, cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.augmentation import crop_and_flip, strong_augment
from tasks.base import TASKS, DataError, Examples, Task
from tasks.datasets.digits import read_digits, stratified_train
from tasks.inference import IMAGES, Unlabelled, one_file
from tasks.models import MODELS
from tasks.seeds import rng

CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""


class ImageTask(Task):
    """Classification of uint8 images: normalised by constants, learned by a model from ``MODELS``.

    A subclass sets ``mean`` and ``std``, one number per channel, for images scaled to [0, 1], and ``brightest``,
    the stored value that becomes 1. ``scaling`` says how an image of another size becomes one: ``stretch`` both sides,
    or ``centre``, the middle of an image whose shorter side is scaled to 8/7 of the size.
    """

    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    brightest: ClassVar[int] = 255
    scaling: ClassVar[str] = "stretch"
    encodes_as = "images"
    has_strong_augmentation = True

    def encoder_inputs(self, features: Tensor) -> Tensor:
        """Return uint8 images (n, C, H, W) as float32 between 0 and 1."""
        return features.float() / self.brightest

    def prepare(self, features: Tensor) -> Tensor:
        """Scale uint8 images (N, C, H, W) to [0, 1] and normalise each channel; float32, on the same device."""
        gain, offset = _normalisation(self.mean, self.std, self.brightest, features.device)
        return features * gain + offset

    def preprocessing(self) -> dict[str, Any]:
        """Return how an image file becomes an input, with all numbers; see :mod:`tasks.inference`."""
        channels, height, width = self.input_shape
        return {
            "kind": IMAGES,
            "channels": channels,
            "height": height,
            "width": width,
            "scaling": self.scaling,
            "filter": "bilinear with antialiasing (Pillow)",
            "values": [0, self.brightest],
            "mean": list(self.mean),
            "std": list(self.std),
            "formula": f"(value / {self.brightest} - mean) / std for each channel",
        }

    def unlabelled(self, path: Path) -> Iterator[Unlabelled]:
        """Yield the one example of an image file."""
        return one_file(partial(self.file_pixels, path))

    def file_pixels(self, path: Path) -> npt.NDArray[np.uint8]:
        """Return an image file as a raw example (C, H, W) with values from 0 to ``brightest``.

        Raises
        ------
        UnusableError
            If it cannot be read, or has colours where grey is expected.
        """
        from tasks.own_data.pixels import read_image  # whose package imports this module

        channels, height, _ = self.input_shape
        pixels = read_image(path, channels, height)
        return np.rint(pixels * (self.brightest / 255)).astype(np.uint8) if self.brightest != 255 else pixels

    def strong_augment(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Return much changed copies of a raw batch, for methods that compare two views of an image."""
        return strong_augment(features, generator, self.brightest)

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


@TASKS.register(
    "digits",
    "Alpaydin and Kaynak, Kybernetika 1998",
    "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
)
class Digits(ImageTask):
    """1,797 handwritten digits of 8x8 pixels, part of scikit-learn: no download, runs in seconds.

    A fixed split by class gives 1,437 training and 360 test images in every run. Source: Alpaydin and Kaynak,
    Kybernetika 1998.
    """

    class_names = tuple("0123456789")
    default_model = "digits-cnn"
    input_shape = (1, 8, 8)
    mean, std, brightest = (0.0,), (1.0,), 16

    def data_state(self, part: str, cache: Path) -> str:
        """Return the version of the package that has the digits."""
        return f"scikit-learn {version('scikit-learn')}"

    def train_examples(self) -> Examples:
        """Return the 1,437 training images, uint8 (1437, 1, 8, 8) with values 0 to 16."""
        return self._split[0]

    def test_examples(self) -> Examples:
        """Return the 360 test images, uint8 (360, 1, 8, 8) with values 0 to 16."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Examples, Examples]:
        images, labels = read_digits()
        everything = Examples(torch.from_numpy(images)[:, None], labels)
        train = stratified_train(labels, len(labels) - 360, seed=0)
        test = np.setdiff1d(np.arange(len(labels)), train)
        return everything.take(train), everything.take(test)


class PublishedImages(ImageTask):
    """A published data set of images that fit into memory, in files of a folder; a subclass reads them.

    Parameters
    ----------
    data_path
        Folder that holds ``folder``, as published.
    train_samples, test_samples
        Use only this many examples: the same ones in every run, all of them part of any larger choice; 0 = all.

    Raises
    ------
    ValueError
        If more examples are asked for than there are.
    """

    title: ClassVar[str]
    folder: ClassVar[str]
    sizes: ClassVar[dict[str, int]]

    def __init__(self, data_path: Path | str | None = None, train_samples: int = 0, test_samples: int = 0) -> None:
        self.data_path = None if data_path is None else Path(data_path)
        self.samples = {"train": train_samples, "test": test_samples}
        for part, wanted in self.samples.items():
            if not isinstance(wanted, int) or not 0 <= wanted <= self.sizes[part]:
                raise ValueError(f"{part}_samples = {wanted!r}: a number from 0 (all) to {self.sizes[part]} expected")

    @abstractmethod
    def paths(self) -> list[Path]:
        """Return the published files.

        Raises
        ------
        DataError
            If the folder is not named or a file is not there; contents are not read.
        """

    @abstractmethod
    def read(self, part: str) -> Examples:
        """Return all examples of ``part`` ("train" or "test") in the published order.

        Raises
        ------
        DataError
            If files are missing or damaged.
        """

    def check(self) -> None:
        """Raise ``DataError`` unless the folder is named and every file is there; contents are not read."""
        self.paths()

    def train_examples(self) -> Examples:
        """Return the training images, uint8 (n, C, H, W), read once per task object.

        Raises
        ------
        DataError
            If files are missing or damaged.
        """
        return self._train

    def test_examples(self) -> Examples:
        """Return the test images, uint8 (n, C, H, W), read once per task object.

        Raises
        ------
        DataError
            If files are missing or damaged.
        """
        return self._test

    def positions(self, part: str) -> npt.NDArray[np.int64]:
        """Return where each example of ``part`` ("train" or "test") stands in the published order, ascending (n,).

        Label files that others made for the whole set are in that order.
        """
        return subset(self.title, part, self.sizes[part], self.samples[part])

    def data_state(self, part: str, cache: Path) -> str:
        """Return path, size and time of change of the files, and how many examples are used of them."""
        paths = self.paths()
        states = [path.stat() for path in paths]
        folder = str(paths[0].parent)
        return str([folder, self.samples[part], [(found.st_size, found.st_mtime_ns) for found in states]])

    def train_ids(self) -> npt.NDArray[np.int64]:
        """Return where each training example stands in the published order, (n,)."""
        return self.positions("train")

    @cached_property
    def _train(self) -> Examples:
        return self._chosen("train")

    @cached_property
    def _test(self) -> Examples:
        return self._chosen("test")

    def _chosen(self, part: str) -> Examples:
        examples = self.read(part)
        return examples.take(self.positions(part)) if self.samples[part] else examples


def subset(title: str, part: str, everything: int, wanted: int) -> npt.NDArray[np.int64]:
    """Return which of a data set's examples are used, ascending (n,): always the same ones, part of any larger choice.

    ``wanted`` is their number, 0 stands for all.
    """
    if not wanted:
        return np.arange(everything)
    return np.sort(rng(0, title, "subset", part).permutation(everything)[:wanted])


class Cifar(PublishedImages):
    """Common part of CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test photographs, 3x32x32.

    Augmentation is a random crop after padding by 4 pixels, and a mirror image half of the time. See
    :class:`PublishedImages` for the parameters; ``folder`` is the unpacked archive.
    """

    reader: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    sizes: ClassVar[dict[str, int]] = {"train": 50_000, "test": 10_000}
    input_shape = (3, 32, 32)

    def augment(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Return a crop after zero padding by 4 pixels of each raw image, mirrored half of the time."""
        return crop_and_flip(features, generator, padding=4)

    def paths(self) -> list[Path]:
        """Return the files of the unpacked archive; see :class:`PublishedImages`."""
        folder = self._present_folder()
        return [folder / name for name in self.files]

    def read(self, part: str) -> Examples:
        """Return all images of ``part``; see :class:`PublishedImages`."""
        from torchvision import datasets
        from torchvision.datasets.utils import check_integrity

        folder = self._present_folder()
        reader = getattr(datasets, self.reader)
        try:
            data = reader(folder.parent, train=part == "train", download=False)
        except (RuntimeError, OSError) as error:  # torchvision compares every file with its published MD5 sum first
            sums = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
            damaged = [name for name, md5 in sums if not check_integrity(folder / name, md5)]
            raise DataError(
                f"{self.title}: damaged in {folder}: {', '.join(damaged) or error}; delete that folder and "
                f"{self._remedy(folder.parent)}"
            ) from error
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2)  # torchvision shows its (N, C, H, W) array as NHWC
        return Examples(images.contiguous(), np.array(data.targets, dtype=np.int64))

    def _present_folder(self) -> Path:
        if self.data_path is None:
            raise DataError(f"{self.title} needs a data folder and none is given; {self._remedy(Path('data'))}")
        folder = self.data_path.absolute() / self.folder
        missing = [name for name in self.files if not os.access(folder / name, os.R_OK)]
        if missing:
            raise DataError(
                f"{self.title}: cannot read {', '.join(missing)} in {folder}; expected there: {', '.join(self.files)}; "
                f"{self._remedy(folder.parent)}"
            )
        return folder

    def _remedy(self, root: Path) -> str:
        download = f"from torchvision.datasets import {self.reader}; {self.reader}('.', download=True)"
        return f'fetch it: run  python -c "{download}"  in {root}, or let task.data-path name the folder that has it'


@TASKS.register(
    "cifar-10",
    "Krizhevsky, technical report, University of Toronto 2009",
    "https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
)
class Cifar10(Cifar):
    """60,000 photographs of 10 classes, 3x32x32; needs the folder cifar-10-batches-py."""

    title, reader, folder = "CIFAR-10", "CIFAR10", "cifar-10-batches-py"
    files = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    default_model = "cnn8"
    mean = (0.49139968, 0.48215827, 0.44653124)
    std = (0.24703233, 0.24348505, 0.26158768)


@TASKS.register(
    "cifar-100",
    "Krizhevsky, technical report, University of Toronto 2009",
    "https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
)
class Cifar100(Cifar):
    """60,000 photographs of 100 classes, 3x32x32; needs the folder cifar-100-python."""

    title, reader, folder = "CIFAR-100", "CIFAR100", "cifar-100-python"
    files = ("train", "test", "meta")
    class_names = tuple(CIFAR100_CLASSES.split())
    default_model = "resnet34"
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
