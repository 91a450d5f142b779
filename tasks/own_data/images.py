"""Images of a node's own: one folder per class, or a table that lists them with their labels."""

import os
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.augmentation import crop_and_flip
from tasks.base import TASKS, DataError
from tasks.images import ImageTask
from tasks.own_data.base import TEST_FOLDER, ListedTask, OwnDataTask
from tasks.own_data.depth import found_bits
from tasks.own_data.files import (
    Problem,
    UnusableError,
    count_files,
    entries,
    everything_below,
    files_below,
    inside,
    nfc,
    readable_image,
    real,
    shows_data,
)
from tasks.own_data.folders import group_of, sift
from tasks.own_data.pixels import Pixels, read_image
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
    bits
        Bits, 8 to 16, that are used in 16-bit files which do not say so; 0: found over the whole data folder.
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
        bits: int = 0,
        **declared: Any,
    ) -> None:
        super().__init__(**declared)
        if not 1 <= size <= 4096:
            raise DataError(f"size = {size}: 1 to 4096 pixels a side are expected")
        if channels not in (1, 3):
            raise DataError(f"channels = {channels}: 1 (grey) or 3 (colour) is expected")
        if not 0 <= crop_padding <= size:
            raise DataError(f"crop_padding = {crop_padding}: 0 to size = {size} pixels are expected")
        if bits and not 8 <= bits <= 16:
            raise DataError(f"bits = {bits}: 8 to 16 bits are expected, or 0 to find out")
        self._bits, self._found = bits, dict[Path, int]()
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

    def pixels(self, root: Path, path: Path) -> Pixels:
        """Return an image of a data folder as (channels, size, size).

        Raises
        ------
        UnusableError
            If it cannot be used.
        """
        return read_image(path, self.channels, self.size, partial(self.bits_of, root))

    def preprocessing(self) -> dict[str, Any]:
        """Return how an image file becomes an input; ``bits`` of 16-bit files are 0 if nobody knows them."""
        return {**super().preprocessing(), "bits": self.known_bits()}

    def known_bits(self) -> int:
        """Return how many bits are used in 16-bit files that do not say so: as declared, or as found so far, else 0."""
        return self._bits or max(self._found.values(), default=0)

    def file_pixels(self, path: Path) -> Pixels:
        """Return an image file as a raw example; how many bits are used is never guessed from one file."""
        return read_image(path, self.channels, self.size, self._needed_bits)

    def _needed_bits(self) -> int:
        if not self.known_bits():
            raise UnusableError("is a 16-bit image that does not say how many bits are used: declare bits in task.args")
        return self.known_bits()

    def bits_of(self, root: Path) -> int:
        """Return how many bits are used in 16-bit files of a data folder that do not say so."""
        if not self._bits and root not in self._found:
            self._found[root] = found_bits(self._image_files(root))
        return self._bits or self._found[root]

    def remarks(self, root: Path) -> tuple[str, ...]:
        """Say which bits of 16-bit files were read if that had to be found."""
        bits = self._found.get(root, 16)
        if bits == 16:
            return ()
        text = (
            f"the 16-bit images in {root} hold no value above {(1 << bits) - 1:,} and are read as {bits} bits, else "
            f"they would be too dark; declare bits = {bits} in task.args (16 for the full range), so that all sites "
            "and the test data are read alike"
        )
        return (text,)

    def _image_files(self, root: Path) -> Iterator[Path]:
        """Yield the files of a data folder that may be its images."""
        for path in self._files(root):
            with suppress(UnusableError):  # said when it is read
                yield readable_image(root, path)

    def _files(self, root: Path) -> Iterator[Path]:
        """Yield at least all files of a data folder that are read: here all, since a table may list any."""
        return everything_below(root)

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
    folder there. Folders inside a class folder are read too; the first one is the group of its images. Where images
    have groups, one without is a problem; so is an image that is reached by two names.

    Raises
    ------
    DataError
        If a declaration does not fit, or a class would have the folder of the test data or one that is never read.
    """

    def __init__(self, **declared: Any) -> None:
        super().__init__(**declared)
        if TEST_FOLDER in self.values:
            raise DataError(f"the folder {TEST_FOLDER!r} is for test data: name the folders of the classes in values")
        if unseen := [value for value in self.values if not shows_data(value)]:
            raise DataError(f"folders such as {unseen[0]!r} are never read: name the folders of the classes otherwise")

    def read(self, root: Path) -> Reading:
        """Read all images; see :class:`OwnDataTask`."""
        problems: list[Problem] = []
        left_out, items = self.left_out(root), []
        for folder in entries(root):
            try:
                items += self._items(root, folder, left_out)
            except UnusableError as problem:
                count = count_files(folder, left_out) if os.path.isdir(folder) else 1
                problems.append(Problem(folder.name, str(problem), count, folder.name))
        kept, refused = sift(root, items, left_out, grouped=root != self.test_root)
        return read_items(kept, self.shape, [*problems, *refused], self.place(root))

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        return f"expected folders of images: {', '.join(self.values)}"

    def _files(self, root: Path) -> Iterator[Path]:
        left_out = self.left_out(root)
        folders = [folder for folder in entries(root) if nfc(folder.name) in self.values and os.path.isdir(folder)]
        return (path for folder in folders for path in files_below(folder, left_out))

    def _items(self, root: Path, folder: Path, left_out: AbstractSet[Path]) -> list[Item]:
        if not os.path.isdir(folder):
            raise UnusableError(f"is not in the folder of a class: {', '.join(self.values)}")
        if self._only_test_data(folder, left_out):
            return []
        label = self.label(folder.name)
        paths = list(files_below(inside(root, folder.name), left_out))
        if not paths:
            raise UnusableError("the folder is empty; remove it if this site has no such images")
        return [self._item(root, folder, path, label) for path in paths]

    def _only_test_data(self, folder: Path, left_out: AbstractSet[Path]) -> bool:
        """Tell whether a folder is one of test data, or belongs to no class and holds nothing else."""
        if real(folder) in left_out or nfc(folder.name) in self.values:
            return real(folder) in left_out
        return any(files_below(folder)) and not any(files_below(folder, left_out))

    def _item(self, root: Path, folder: Path, path: Path, label: int) -> Item:
        name, read = path.relative_to(root).as_posix(), partial(self._pair, root, path, label)
        return Item(name, read, group_of(folder, path), value=self.values[label], file=path)

    def _pair(self, root: Path, path: Path, label: int) -> Pair:
        return self.pixels(root, readable_image(root, path)), label


@TASKS.register("image-csv")
class ImageTable(OwnImages, ListedTask):
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

    def row_name(self, row: Row) -> str:
        """Return the name of the image in a row: its path as it is listed."""
        return row.cells.get(self._image, "")

    def read(self, root: Path) -> Reading:
        """Read all images of the table; see :class:`OwnDataTask`."""
        columns = tuple(filter(None, (self._image, self._label, self._group)))
        table = read_table(root, self._table, columns)
        reasons = self._repeated(root, table.rows)
        items = [self._item(root, row, reasons.get(row.line, "")) for row in table.rows]
        return replace(read_items(items, self.shape, place=self.place(root)), notes=table.notes)

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        columns = f"the columns {self._image} and {self._label}"
        return f"expected a table {self._table.file} with {columns}, and a row for each image"

    def _repeated(self, root: Path, rows: Sequence[Row]) -> dict[int, str]:
        """Return, by line, why rows cannot be used that list the file of another row: which label counts, nobody knows.

        Where all have the same label, the first one can.
        """
        same: dict[object, list[Row]] = {}
        for row in rows:
            same.setdefault(_identity(root, row.cells.get(self._image, "")), []).append(row)
        reasons = {}
        for first, *others in same.values():
            for row in others:
                reasons[row.line] = f"is listed in line {first.line} already{self._spelling(first, row)}"
            labels = {nfc(row.cells[self._label]): row for row in (*others[::-1], first) if row.complete}
            for row in (first, *others) if len(labels) > 1 else ():
                other = next(other for label, other in labels.items() if label != nfc(row.cells.get(self._label, "")))
                place = f"line {other.line} too{self._spelling(other, row)}"
                reasons[row.line] = f"is listed in {place}, with another label"
        return reasons

    def _spelling(self, other: Row, row: Row) -> str:
        path = other.cells.get(self._image, "")
        return f", as {path}" if path != row.cells.get(self._image, "") else ""

    def _item(self, root: Path, row: Row, reason: str) -> Item:
        listed = self.row_name(row)
        place = f"{self._table.file} line {row.line}" + (f", {listed}" if listed else "")
        read = partial(self._pair, root, row, reason)
        return Item(listed, read, row.group(self._group), place, nfc(row.cells.get(self._label, "")))

    def _pair(self, root: Path, row: Row, reason: str) -> Pair:
        listed, label = row.cell(self._image), self.label(row.label(self._label, self._group))
        if reason:
            raise UnusableError(reason)
        return self.pixels(root, _listed_image(root, listed)), label


def _identity(root: Path, name: str) -> object:
    """Return what is the same for all names of one file: by other paths, links, or on disks that disregard case."""
    try:
        found = os.stat(inside(root, name))
    except (UnusableError, OSError):  # said when it is read
        return name
    return found.st_dev, found.st_ino


def _listed_image(root: Path, name: str) -> Path:
    """Return the path of a file that a table lists, if it may be an image; see :func:`readable_image`."""
    path, turned = inside(root, name), name.replace("\\", "/")
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        is_turned = turned != name and os.path.isfile(inside(root, turned))
        hint = f", but there is {turned}: write / between folders, not \\" if is_turned else ""
        raise UnusableError(f"there is no such file{hint}") from error
    except OSError as error:
        raise UnusableError(f"cannot be reached: {error.strerror}") from error
    return readable_image(root, path)
