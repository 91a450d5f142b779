"""Images of a node's own: one folder per class, or a table that lists them with their labels."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.base import TASKS, DataError
from tasks.images import ImageTask, crop_and_flip
from tasks.own_data.base import TEST_FOLDER, OwnDataTask, attempt
from tasks.own_data.files import Problem, UnusableError, entries, files_below, inside, nfc, readable_image
from tasks.own_data.pixels import read_image
from tasks.own_data.reading import Item, Pair, Reading, Shape, read_items
from tasks.own_data.tables import Row, TableFormat, column_name, column_names, needed_column, read_table


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
    delimiter, header, quote
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
        quote: str = '"',
        **declared: Any,
    ) -> None:
        super().__init__(**declared)
        self._table = TableFormat(file, delimiter, column_names("header", header), quote)
        self._image, self._label = needed_column("image", image), needed_column("label", label)
        self._group = column_name(group)

    def read(self, root: Path) -> Reading:
        """Read all images of the table; see :class:`OwnDataTask`."""
        columns = tuple(filter(None, (self._image, self._label, self._group)))
        table, listed = read_table(root, self._table, columns), _ListedFiles(root)
        reading = read_items([self._item(row, listed) for row in table.rows], self.shape)
        return replace(reading, notes=table.notes)

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        columns = f"the columns {self._image} and {self._label}"
        return f"expected a table {self._table.file} with {columns}, and a row for each image"

    def _item(self, row: Row, listed: "_ListedFiles") -> Item:
        name = row.cells.get(self._image, "")
        place = f"{self._table.file} line {row.line}" + (f", {name}" if name else "")
        return Item(name, partial(self._pair, row, listed), row.group(self._group), place)

    def _pair(self, row: Row, listed: "_ListedFiles") -> Pair:
        name = row.cell(self._image)
        path = listed.once(name, row.line)
        label = self.label(row.label(self._label, self._group))
        return read_image(listed.readable(name, path), self.channels, self.size), label


class _ListedFiles:
    """The files below ``root`` that the rows of a table name, each in one row only."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[str, list[tuple[Path, str, int]]] = {}

    def once(self, name: str, line: int) -> Path:
        """Return the path of the file that a line names.

        Raises
        ------
        UnusableError
            If a line before has it, be it by another path or through a link, or it lies outside of ``root``.
        """
        path = inside(self._root, name)
        real = Path(os.path.realpath(path))
        alike = self._seen.setdefault(nfc(str(real)).casefold(), [])
        for other, listed, first in alike:
            if other == real or _is_same(other, real):
                raise UnusableError(f"is listed in line {first} already" + (f", as {listed}" if listed != name else ""))
        alike.append((real, name, line))
        return path

    def readable(self, name: str, path: Path) -> Path:
        """Return ``path`` if it may be an image, else raise ``UnusableError``; see :func:`readable_image`."""
        turned = name.replace("\\", "/")
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError) as error:
            is_turned = turned != name and os.path.isfile(inside(self._root, turned))
            hint = f", but there is {turned}: write / between folders, not \\" if is_turned else ""
            raise UnusableError(f"there is no such file{hint}") from error
        except OSError as error:
            raise UnusableError(f"cannot be reached: {error.strerror}") from error
        return readable_image(self._root, path)


def _is_same(one: Path, other: Path) -> bool:
    """Tell whether two paths are one file, as where a disk does not tell upper from lower case."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
