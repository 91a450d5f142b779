"""Images of a node's own: one folder per class, or a table that lists them with their labels."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.base import TASKS, DataError
from tasks.images import ImageTask, crop_and_flip
from tasks.own_data.base import TEST_FOLDER, OwnDataTask, attempt, distinct
from tasks.own_data.files import Problem, UnusableError, entries, files_below, inside, readable_image
from tasks.own_data.pixels import read_image
from tasks.own_data.reading import Item, Pair, Reading, Shape, read_items
from tasks.own_data.tables import Row, TableFormat, read_rows


class OwnImages(OwnDataTask, ImageTask):
    """Images of any size and format, held as uint8 (n, channels, size, size): n x channels x size^2 bytes.

    Parameters
    ----------
    size
        Pixels of a side; images are scaled to a square.
    channels
        1 (grey) or 3 (colour); see ``tasks/own_data/pixels.py`` for how files become either.
    mean, std
        Normalisation of each channel, for values from 0 to 1; the same at all sites.
    crop_padding
        Training images are padded by so many pixels, cropped and mirrored at random; 0 leaves them as they are.
    **declared
        See :class:`OwnDataTask`.

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


@TASKS.register("image-folder")
class ImageFolder(OwnImages):
    """A folder of images for each class, named as the class.

    A folder that belongs to no class is a problem, and so is an empty one: a class that a site does not have has no
    folder there. Folders inside a class folder are read too; the first one is the group of its images.

    Raises
    ------
    DataError
        If a declaration does not fit, or a class would have the folder of the test data.
    """

    def __init__(self, **declared: Any) -> None:
        super().__init__(**declared)
        if TEST_FOLDER in self.values:
            raise DataError(f"the folder {TEST_FOLDER!r} is for test data: name the folders of the classes in values")

    def read(self, root: Path) -> Reading:
        """Read all images; see :class:`OwnDataTask`."""
        problems: list[Problem] = []
        items = [
            item
            for folder in entries(root)
            if folder not in (root / TEST_FOLDER, self.test_root)
            for item in attempt(folder.name, partial(self._items, root, folder), problems) or []
        ]
        return read_items(items, self.shape, problems)

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        return f"expected folders of images: {', '.join(self.values)}"

    def _items(self, root: Path, folder: Path) -> list[Item]:
        if not folder.is_dir():
            raise UnusableError(f"is not in the folder of a class: {', '.join(self.values)}")
        label = self.label(folder.name)
        paths = list(files_below(inside(root, folder.name)))
        if not paths:
            raise UnusableError("the folder is empty; remove it if this site has no such images")
        return [self._item(root, folder, path, label) for path in paths]

    def _item(self, root: Path, folder: Path, path: Path, label: int) -> Item:
        name, below = path.relative_to(root).as_posix(), path.relative_to(folder).parts
        return Item(name, partial(self._pair, root, path, label), below[0] if len(below) > 1 else "")

    def _pair(self, root: Path, path: Path, label: int) -> Pair:
        return read_image(readable_image(root, path), self.channels, self.size), label


@TASKS.register("image-csv")
class ImageTable(OwnImages):
    """A CSV file with a row for each image: its path inside the data folder, and its label.

    Parameters
    ----------
    file
        The table, in the data folder.
    image, label
        Columns of the image's path and of its label.
    group
        Column that says where an image comes from, for the partition ``natural``.
    delimiter, header
        How the table is written; see :class:`TableFormat`.
    **declared
        See :class:`OwnImages`.
    """

    def __init__(
        self,
        file: str = "labels.csv",
        image: str = "image",
        label: str = "label",
        group: str = "",
        delimiter: str = ",",
        header: Sequence[str] = (),
        **declared: Any,
    ) -> None:
        super().__init__(**declared)
        self._table = TableFormat(file, delimiter, distinct("header", header, str))
        self._image, self._label, self._group = image, label, group

    def read(self, root: Path) -> Reading:
        """Read all images of the table; see :class:`OwnDataTask`."""
        columns = filter(None, (self._image, self._label, self._group))
        rows = read_rows(root, self._table, tuple(columns))
        first: dict[str, int] = {}
        for row in rows:
            first.setdefault(row.cells.get(self._image, ""), row.line)
        return read_items([self._item(root, row, first) for row in rows], self.shape)

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        return f"expected a table {self._table.file} with the columns {self._image} and {self._label}"

    def _item(self, root: Path, row: Row, first: dict[str, int]) -> Item:
        listed = row.cells.get(self._image, "")
        place = f"{self._table.file} line {row.line}" + (f", {listed}" if listed else "")
        return Item(listed, partial(self._pair, root, row, first[listed]), row.cells.get(self._group, ""), place)

    def _pair(self, root: Path, row: Row, first: int) -> Pair:
        listed, label = row.cell(self._image), self.label(row.cell(self._label))
        if first != row.line:
            raise UnusableError(f"is listed in line {first} already")
        return read_image(readable_image(root, inside(root, listed)), self.channels, self.size), label
