"""Contents of examples as people look at them: an image at its own proportions, a text, or the cells of a row.

Which file or row it is follows from the audit's list alone, by the number of an example: nobody names a path.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from client_app.mask_audit_files import read_both_masks
from client_app.mask_pictures import enlarged, side_by_side
from client_app.word_importance import MarkedText, read_words
from server_app.label_review.review import LabelReview
from tasks.base import DataError, Labels, Task
from tasks.own_data.base import ListedTask
from tasks.own_data.files import UnusableError, inside, readable_image
from tasks.own_data.images import OwnImages
from tasks.own_data.pixels import as_shown, open_image
from tasks.own_data.tables import Row
from tasks.own_data.texts import TextTable

Kind = Literal["image", "text", "fields", "none"]
IMAGE_SIDE, THUMBNAIL_SIDE = 1280, 112
MOST_CHARACTERS = 20_000


class ContentError(Exception):
    """Why an example cannot be shown."""


@dataclass(frozen=True)
class Marked:
    """A text in pieces, each with its influence in nats: how much it speaks for ``other`` and against ``given``."""

    given: str
    other: str
    pieces: list[tuple[str, float]]


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
        image = self._shown(number, side)
        image.thumbnail((side, side))
        return _encoded(image)

    def thumbnail(self, number: int) -> bytes:
        """Return what :meth:`image` does, small; of a mask's picture the half with the outlines.

        Raises
        ------
        ContentError
            If there is none that can be shown.
        """
        if not self._review.of_masks:
            return self.image(number, THUMBNAIL_SIDE)
        image = self._shown(number, 4 * THUMBNAIL_SIDE)
        if self._has_picture(number):
            image = image.crop((image.width // 2, 0, image.width, image.height))
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
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

    def marked_text(self, number: int) -> Marked:
        """Return what :meth:`text` does in pieces, each with its influence, 0 where nothing is marked.

        The marks are those of the audit; a text that has changed since has none.

        Raises
        ------
        ContentError
            If it is not there.
        """
        text, found = self.text(number), self._words.get(self._review.examples[number].name)
        words = [word for word in found.words if word.start < MOST_CHARACTERS] if found else []
        if not found or not all(text.startswith(word.word, word.start) for word in words):
            return Marked("", "", [(text, 0.0)])
        pieces, end = list[tuple[str, float]](), 0
        for word in words:
            pieces += [(text[end : word.start], 0.0), (word.word, word.influence)]
            end = word.start + len(word.word)
        return Marked(found.given, found.other, [piece for piece in [*pieces, (text[end:], 0.0)] if piece[0]])

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

    def _shown(self, number: int, side: int) -> Image.Image:
        try:
            return self._masked(number, side) if self._review.of_masks else self._file_image(number, side)
        except (UnusableError, DataError, OSError, ValueError) as error:
            raise ContentError(str(error)) from error

    @property
    def has_outlines(self) -> bool:
        """Whether masks are drawn over their images."""
        return self._review.of_masks and any(map(self._has_picture, range(len(self._review.examples))))

    def _has_picture(self, number: int) -> bool:
        """Whether an image is shown beside itself with its mask over it."""
        return self._masks is not None or bool(self._review.examples[number].further.get("picture", ""))

    def _masked(self, number: int, side: int) -> Image.Image:
        """Return the image with the masks of the audit, else the picture that it has made, else the image alone."""
        if self._masks is not None:
            plain = self._file_image(number, side // 2).convert("RGB")
            plain.thumbnail((side // 2, side // 2))
            given, suggested = (masks[number] for masks in self._masks)
            return Image.fromarray(side_by_side(enlarged(np.asarray(plain)), given, suggested))
        if not self._has_picture(number):
            return self._file_image(number, side)
        listed = self._review.examples[number].further["picture"]
        with Image.open(inside(self._review.folder.absolute(), listed)) as image:
            return image.convert("RGB")

    @cached_property
    def _masks(self) -> tuple[Labels, Labels] | None:
        """Given masks and those that seem right, in the order of the list; None where the audit has not kept them."""
        found = read_both_masks(self._review.folder)
        fits = found is not None and len(found[0]) == len(found[1]) == len(self._review.examples)
        return found if fits else None

    @cached_property
    def _words(self) -> Mapping[str, MarkedText]:
        return read_words(self._review.folder)

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
            return self._task.rows_by_name()
        except DataError as error:
            raise ContentError(str(error)) from error


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
        image.save(file, "JPEG", quality=90, subsampling=0)  # thin lines in colour stay so
    return file.getvalue()
