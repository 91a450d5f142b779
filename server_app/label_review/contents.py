"""Contents of examples as people look at them: an image at its own proportions, a text, or the cells of a row.

Which file or row it is follows from the audit's list alone, by the number of an example: nobody names a path.
"""

import io
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from server_app.label_review.review import LabelReview
from tasks.base import DataError, Task
from tasks.own_data.base import ListedTask
from tasks.own_data.files import UnusableError, inside, readable_image
from tasks.own_data.images import OwnImages
from tasks.own_data.pixels import as_shown, open_image
from tasks.own_data.tables import Row, read_table
from tasks.own_data.texts import TextTable

Kind = Literal["image", "text", "fields", "none"]
IMAGE_SIDE, THUMBNAIL_SIDE = 1280, 112
MOST_CHARACTERS = 20_000


class ContentError(Exception):
    """Why an example cannot be shown."""


class Contents:
    """What the examples of a review show.

    Attributes
    ----------
    kind
        ``image``, ``text``, ``fields`` (columns and cells of a row), or ``none`` if only names are known.
    """

    def __init__(self, review: LabelReview) -> None:
        self._review, self._task = review, review.task
        self.kind: Kind = _kind(self._task)

    def image(self, number: int, side: int = IMAGE_SIDE) -> bytes:
        """Return the image of an example as PNG or JPEG, at most ``side`` pixels wide and high.

        It is decoded and written anew, so what else a file holds, such as a place in its EXIF data, is not shown.

        Raises
        ------
        ContentError
            If there is none that can be shown.
        """
        try:
            image = self._picture(number) or self._file_image(number, side)
        except (UnusableError, DataError, OSError, ValueError) as error:
            raise ContentError(str(error)) from error
        image.thumbnail((side, side))
        return _encoded(image)

    def text(self, number: int) -> str:
        """Return the text of an example, shortened if it is very long.

        Raises
        ------
        ContentError
            If it is not there.
        """
        assert isinstance(self._task, TextTable)
        text = self._task.row_text(self._row(number))
        return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"

    def fields(self, number: int) -> list[tuple[str, str]]:
        """Return columns and cells of an example's row, without that of the label.

        Raises
        ------
        ContentError
            If it is not there.
        """
        assert isinstance(self._task, ListedTask)
        cells = self._row(number).cells.items()
        return [(name, cell) for name, cell in cells if name != self._task.label_column]

    def path(self, number: int) -> Path | None:
        """Return the file of an example, None if it has none of its own.

        Raises
        ------
        ContentError
            If it is not there.
        """
        if not isinstance(self._task, OwnImages):
            return None
        try:
            path = inside(self._task.root, self._review.examples[number].name)
            return readable_image(self._task.root, path)
        except UnusableError as error:
            raise ContentError(str(error)) from error

    def _picture(self, number: int) -> Image.Image | None:
        """Return the picture that the audit of masks has made, if it has."""
        listed = self._review.examples[number].further.get("picture", "")
        if not listed or not self._review.of_masks:
            return None
        with Image.open(inside(self._review.folder.absolute(), listed)) as image:
            return image.convert("RGB")

    def _file_image(self, number: int, side: int) -> Image.Image:
        path = self.path(number)
        if path is None:
            return self._built_in(number)
        assert isinstance(self._task, OwnImages)
        return as_shown(open_image(path, partial(self._task.bits_of, self._task.root)), side)

    def _built_in(self, number: int) -> Image.Image:
        """Return an image of a data set that is no folder of files, as the model sees it."""
        place = self._places.get(self._review.examples[number].name)
        if place is None:
            raise ContentError("it is not in the data set")
        shown = self._task.encoder_inputs(self._task.train_examples().features[place][None])[0]
        pixels = (255 * shown.float().clamp(0, 1)).round().byte().cpu().numpy()
        return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels[:3].transpose(1, 2, 0))

    @cached_property
    def _places(self) -> Mapping[str, int]:
        names = self._task.example_names(np.arange(len(self._task.train_examples())))
        return {name: place for place, name in enumerate(names)}

    def _row(self, number: int) -> Row:
        name = self._review.examples[number].name
        if name not in self._rows:
            raise ContentError("it is no longer in the table")
        return self._rows[name]

    @cached_property
    def _rows(self) -> Mapping[str, Row]:
        assert isinstance(self._task, ListedTask)
        try:
            rows = read_table(self._task.root, self._task.table_format, (self._task.label_column,)).rows
        except DataError as error:
            raise ContentError(str(error)) from error
        return {self._task.row_name(row): row for row in reversed(rows)}  # of several the first, as it was trained on


def _kind(task: Task) -> Kind:
    if isinstance(task, TextTable):
        return "text"
    if isinstance(task, OwnImages) or (task.encodes_as == "images" and not task.brings_own_data):
        return "image"
    return "fields" if isinstance(task, ListedTask) else "none"


def _encoded(image: Image.Image) -> bytes:
    file, small = io.BytesIO(), image.width * image.height <= 256 * 256
    if small:  # sharp edges of small images must not be smeared
        image.save(file, "PNG")
    else:
        image.save(file, "JPEG", quality=90)
    return file.getvalue()
