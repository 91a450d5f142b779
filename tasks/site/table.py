"""Images that a table lists with their labels."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tasks.base import TASKS
from tasks.site.base import distinct
from tasks.site.files import inside, readable_image
from tasks.site.images import SiteImages
from tasks.site.pictures import read_image
from tasks.site.problems import UnusableError
from tasks.site.reading import Item, Pair, Reading, read_items
from tasks.site.rows import Row, TableFormat, read_rows


@TASKS.register("image-csv")
class ImageTable(SiteImages):
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
        See :class:`SiteImages`.
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
        """Read all images of the table; see :class:`SiteTask`."""
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
