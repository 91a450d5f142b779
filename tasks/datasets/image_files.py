"""Image data sets in files of any size and number: read by their published lists, decoded once, mapped.

Images are decoded block by block into the files of an :class:`tasks.example_store.ExampleStore`, or straight into an
encoder; memory holds the lists and one block.
"""

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.augmentation import crop_and_flip
from tasks.base import DataError, Examples, Labels
from tasks.datasets.lists import Listing
from tasks.example_store import ExampleStore, RowShape
from tasks.images import ImageTask, subset
from tasks.issues import WARNING, Issue
from tasks.own_data.files import BadDataError, Problem, inside, listing, readable_image, summary
from tasks.own_data.pixels import Pixels, as_centre, as_pixels, open_image
from tasks.own_data.reading import Cache, Item, Pair, Place, Reading, read_items

VERSION = "1"
"""Of the way in which files become examples here; another one makes other files."""


class ImageFiles(ImageTask):
    """Images in files that lists or their names give labels to.

    Parameters
    ----------
    data_path
        Folder that holds one of ``folders``, or is it.
    size
        Pixels of a side as examples are kept.
    train_samples, test_samples
        Use only this many examples: the same ones in every run, all of them part of any larger choice; 0 = all.
    bad_data
        What to do about files that are missing or cannot be decoded: ``refuse`` all, or ``skip`` those of the training
        data.
    cache
        Its folder keeps the decoded examples; None decodes them into memory.

    Raises
    ------
    DataError
        If an argument is out of its range.
    """

    title: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]
    layout: ClassVar[str]
    source: ClassVar[str]

    def __init__(
        self,
        data_path: Path | str | None = None,
        size: int = 224,
        train_samples: int = 0,
        test_samples: int = 0,
        bad_data: str = "refuse",
        cache: Cache | None = None,
    ) -> None:
        if not 8 <= size <= 4096:
            raise DataError(f"size = {size}: 8 to 4096 pixels a side are expected")
        for name, wanted in (("train_samples", train_samples), ("test_samples", test_samples)):
            if wanted < 0:
                raise DataError(f"{name} = {wanted}: a number from 0 (all) on is expected")
        self.data_path = None if data_path is None else Path(data_path)
        self.size, self.input_shape = size, (3, size, size)
        self._samples = {"train": train_samples, "test": test_samples}
        self._bad_data, self._cache = bad_data, cache

    @abstractmethod
    def marks(self, root: Path) -> tuple[str, ...]:
        """Return the files and folders below the root of the data set without which nothing can be read."""

    @abstractmethod
    def list_part(self, root: Path, part: str) -> Listing:
        """Return all examples of ``part`` ("train" or "test") of the data set at ``root``.

        Raises
        ------
        DataError
            If a list is missing or damaged.
        """

    @abstractmethod
    def pair(self, listing: Listing, number: int) -> Pair:
        """Return features and label of one example.

        Raises
        ------
        UnusableError
            If its files cannot be used.
        """

    @property
    def row(self) -> RowShape:
        """Shape of one example."""
        return RowShape(self.input_shape, np.uint8)

    def root(self) -> Path:
        """Return the folder of the data set.

        Raises
        ------
        DataError
            If no folder is named, or it lacks something.
        """
        remedy = f"expected: {self.layout}. {self.source}"
        if self.data_path is None:
            raise DataError(f"{self.title} needs a data folder and none is given; {remedy}")
        given = self.data_path.absolute()
        roots = [*(given / name for name in self.folders), given]
        lacking = {root: [name for name in self.marks(root) if not os.access(root / name, os.R_OK)] for root in roots}
        best = min(roots, key=lambda root: len(lacking[root]) - len(self.marks(root)))
        if lacking[best]:
            raise DataError(f"{self.title}: cannot read {', '.join(lacking[best])} in {best}; {remedy}")
        return best

    def check(self) -> None:
        """Raise ``DataError`` unless the folder and its lists are there; images are not read."""
        self.root()

    def train_examples(self) -> Examples:
        """Return the training examples: uint8 images (n, 3, size, size), decoded once and mapped.

        Raises
        ------
        DataError
            If files are missing or damaged.
        """
        return self._train.examples

    def test_examples(self) -> Examples:
        """Return the examples to measure with, decoded once and mapped.

        Raises
        ------
        DataError
            If files are missing or damaged.
        """
        return self._test.examples

    def first_examples(self, count: int) -> Examples:
        """Return up to ``count`` training examples, without decoding all others."""
        found = self._used["train"]
        some = found.take(np.arange(min(count, len(found.names))))
        return self._accepted(some, read_items(_Items(some, self.pair), self.row), "train").examples

    def train_labels(self) -> Labels:
        """Return the labels of all training examples, (n,); only files that may be left out make it decode them."""
        if self.labels_pixels or self._bad_data == "skip":
            return self.train_examples().labels
        return self._used["train"].labels

    def train_ids(self) -> npt.NDArray[np.int64]:
        """Return where each training example stands in the published list, (n,)."""
        places = self._positions("train", len(self._whole["train"].names))
        if self._bad_data != "skip":
            return places
        gone = {problem.where for problem in self._train.problems}
        return places[[name not in gone for name in self._used["train"].names]]

    def example_names(self, ids: npt.NDArray[np.int64]) -> Sequence[str]:
        """Return the file of each example, relative to the folder of the data set."""
        names = self._whole["train"].names
        return [names[number] for number in ids]

    def data_issues(self) -> list[Issue]:
        """Return which training examples were left out."""
        reading = self._train
        if not reading.problems:
            return []
        head = f"{summary(reading.problems, reading.total)} in {self.root()} and are left out:"
        return [Issue(WARNING, "task", "\n".join([head, *listing(reading.problems)]))]

    def data_state(self, part: str, cache: Path) -> str:
        """Return path, size and time of change of the lists and of the folders of images, and what is used of them.

        A file that is replaced under its name without a change of its folder is not noticed.
        """
        found = self._used[part]
        folders = sorted({os.path.dirname(name) for name in (*found.names, *found.masks)})
        paths = [*found.sources, *(found.root / name for name in folders)]
        states = [(str(path), *_state(path)) for path in paths]
        used = hashlib.sha256("\0".join([*found.names, *found.masks]).encode()).hexdigest()
        return json.dumps([states, used, self._bad_data if part == "train" else "refuse"])

    def block_reader(self, part: str) -> tuple[Labels, Callable[[int, int], Tensor]] | None:
        """Return the labels and a reader of blocks, so that nothing is kept of images of which features are kept.

        None where files may be left out: how many are left, only decoding tells.
        """
        if self.labels_pixels or (part == "train" and self._bad_data == "skip"):
            return None
        found = self._used[part]

        def block(start: int, stop: int) -> Tensor:
            some = found.take(np.arange(start, stop))
            return self._accepted(some, read_items(_Items(some, self.pair), self.row), part).examples.features

        return found.labels, block

    def pixels(self, path: Path) -> Pixels:
        """Return an image file as (3, size, size): scaled to a square, unless a subclass says otherwise."""
        return as_pixels(open_image(path), 3, self.size)

    def file_pixels(self, path: Path) -> Pixels:
        """Return what :meth:`pixels` does."""
        return self.pixels(path)

    def augment(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Return images moved by up to 1/14 of a side, 16 of 224 pixels, and mirrored half of the time.

        So far goes a random crop of 224 pixels from an image of 256, as is usual; what comes in at an edge is black.
        """
        return crop_and_flip(features, generator, padding=self.size // 14)

    @cached_property
    def _train(self) -> Reading:
        return self._read("train")

    @cached_property
    def _test(self) -> Reading:
        return self._read("test")

    def _read(self, part: str) -> Reading:
        found = self._used[part]
        title = f"Decoding the {'training' if part == 'train' else 'test'} images of {self.title}"
        place = self._place(part, title)
        if place is None or place.store.kept(place.key()) is None:
            self._refuse(found, self._missing(found), part)
        reading = read_items(_Items(found, self.pair), self.row, place=place)
        return self._accepted(found, reading, part)

    def _missing(self, found: Listing) -> tuple[Problem, ...]:
        """Return the listed files that are not there: to be told before hours of decoding, not within."""
        names = (*found.names, *found.masks)
        return tuple(
            Problem(name, "is listed, but there is no such file") for name in names if not (found.root / name).is_file()
        )

    def _accepted(self, found: Listing, reading: Reading, part: str) -> Reading:
        self._refuse(found, reading.problems, part)
        return reading

    def _refuse(self, found: Listing, problems: Sequence[Problem], part: str) -> None:
        """Raise ``DataError`` if something cannot be used and is not to be skipped, or if nothing is left."""
        skip = part == "train" and self._bad_data == "skip"
        if not found.names:
            raise DataError(f"{self.title}: no example is listed in {found.root}; expected: {self.layout}")
        if problems and not (skip and len(problems) < len(found.names)):
            leave = ", or set task.bad-data = 'skip' to leave them out" if part == "train" and not skip else ""
            raise BadDataError(found.root, problems, len(found.names), f"fetch them again{leave}:")

    def _place(self, part: str, title: str) -> Place | None:
        if self._cache is None:
            return None
        facts = [VERSION, self.title, part, self.size, version("pillow"), self.data_state(part, self._cache.folder)]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
        return Place(ExampleStore(self._cache.folder), lambda: key, 0, title)

    def _positions(self, part: str, everything: int) -> npt.NDArray[np.int64]:
        wanted = self._samples[part]
        if wanted > everything:
            raise DataError(f"{part}_samples = {wanted}: {self.title} lists {everything} of them here; 0 takes all")
        return subset(self.title, part, everything, wanted)

    @cached_property
    def _whole(self) -> dict[str, Listing]:
        root = self.root()
        return {part: self.list_part(root, part) for part in ("train", "test")}

    @cached_property
    def _used(self) -> dict[str, Listing]:
        """The examples of each part that are used."""
        return {
            part: whole.take(self._positions(part, len(whole.names))) if self._samples[part] else whole
            for part, whole in self._whole.items()
        }


class LabelledFiles(ImageFiles):
    """Images in files, each with one class number."""

    def pair(self, listing: Listing, number: int) -> Pair:
        """Return the image and its class; see :class:`ImageFiles`."""
        name = listing.names[number]
        return self.pixels(readable_image(listing.root, inside(listing.root, name))), int(listing.labels[number])


class WebImages(LabelledFiles):
    """Photographs of the web whose labels are wrong already, so that ``noise.name = auto`` adds no noise.

    Images are scaled so that the shorter side has 8/7 of ``size`` pixels, 256 for 224, and cut to the centre.
    """

    has_own_noise = True
    default_model = "resnet50"
    scaling = "centre"
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

    def pixels(self, path: Path) -> Pixels:
        """Return the centre of an image file as (3, size, size)."""
        return as_centre(open_image(path), self.size, round(self.size * 8 / 7))


class _Items(Sequence[Item]):
    """The examples of a list as items that are made when they are asked for: a million of them would take memory."""

    def __init__(self, found: Listing, pair: Callable[[Listing, int], Pair]) -> None:
        self._found, self._pair = found, pair

    def __len__(self) -> int:
        return len(self._found.names)

    @overload
    def __getitem__(self, number: int) -> Item: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Item]: ...

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return Item(self._found.names[number], partial(self._pair, self._found, number))


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # said when it is read
        return -1, -1
    return found.st_size, found.st_mtime_ns
