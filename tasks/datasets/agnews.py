"""AG News: news texts of four topics, from the published tables or from the part of them with human labels.

Zhang, Zhao and LeCun, "Character-level convolutional networks for text classification", NeurIPS 2015. Nothing is
downloaded: both tables lie in the folder ``agnews`` or ``ag_news_csv`` of the data folder.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tasks.base import TASKS, DataError, Examples
from tasks.issues import WARNING, Issue
from tasks.own_data.base import look_up
from tasks.own_data.files import BadDataError
from tasks.own_data.reading import Cache, Item, Pair, Reading, Shape, read_items
from tasks.own_data.tables import Row, TableFormat, read_table
from tasks.own_data.texts import TextTask

FOLDERS = ("agnews", "ag_news_csv")
JOINT = " . "
"""Between title and description, as in the part with human labels."""


@dataclass(frozen=True)
class Source:
    """A published table: its file, its columns if its first line does not name them, what stands for the classes."""

    file: str
    header: tuple[str, ...]
    label: str
    text: tuple[str, ...]
    values: tuple[str, ...]
    needed: str = ""
    """Column that must not be empty for a text to be used."""


_PUBLISHED = ("class", "title", "description")
_SMALL = ("merged_train_small.csv", (), "gt", ("text",), ("0", "1", "2", "3"))
SOURCES = {
    "official": Source("train.csv", _PUBLISHED, "class", _PUBLISHED[1:], ("1", "2", "3", "4")),
    "small": Source(*_SMALL),
    "human": Source(*_SMALL, needed="human_noisy_med"),
    "test": Source("test.csv", _PUBLISHED, "class", _PUBLISHED[1:], ("1", "2", "3", "4")),
}


@TASKS.register("ag-news", "Zhang, Zhao and LeCun, NeurIPS 2015", "https://arxiv.org/abs/1509.01626")
class AgNews(TextTask):
    """120,000 news texts of 4 topics and 7,600 for the test; needs the folder agnews or ag_news_csv.

    Parameters
    ----------
    train
        Training texts: ``official``, all of train.csv; ``small``, the 14,547 of merged_train_small.csv; ``human``,
        those 9,993 of them that a person labelled too (for ``noise.name = "human"``).
    words, vocabulary, pairs, tokens
        How a text becomes numbers; see :class:`TextTask`.
    data_path
        Folder that holds the folder with the tables.
    cache
        Keeps the training texts as numbers for other processes; None reads the table in each.

    Raises
    ------
    DataError
        If a declaration is out of its range.
    """

    class_names = ("World", "Sports", "Business", "Sci/Tech")

    def __init__(
        self,
        train: Literal["official", "small", "human"] = "official",
        words: int = 64,
        vocabulary: int = 20_000,
        pairs: bool = True,
        tokens: Callable[[str, int], npt.NDArray[np.int32]] | None = None,
        data_path: Path | str | None = None,
        cache: Cache | None = None,
    ) -> None:
        super().__init__(words=words, vocabulary=vocabulary, pairs=pairs, tokens=tokens)
        self.data_path = None if data_path is None else Path(data_path).absolute()
        self._cache = cache
        self._parts = {"train": SOURCES[train], "test": SOURCES["test"]}

    def check(self) -> None:
        """Raise ``DataError`` unless both tables are there; their rows are not read."""
        for source in self._parts.values():
            self._folder(source)

    def train_examples(self) -> Examples:
        """Return the training texts as numbers, int32 (n, L), read once per task object.

        Raises
        ------
        DataError
            If the table is missing or damaged, or one of its rows cannot be used.
        """
        return self._train.examples

    def test_examples(self) -> Examples:
        """Return the test texts as numbers, int32 (7600, L), read once per task object.

        Raises
        ------
        DataError
            If the table is missing or damaged, or one of its rows cannot be used.
        """
        return self._test.examples

    def train_ids(self) -> npt.NDArray[np.int64]:
        """Return the place of each training text among the rows of its table, (n,), from 0."""
        return np.array(self._train.names, np.int64)

    def data_state(self, part: str, cache: Path) -> str:
        """Return path, size and time of change of the table."""
        source = self._parts[part]
        path = self._folder(source) / source.file
        found = path.stat()
        return str([str(path), found.st_size, found.st_mtime_ns])

    def data_issues(self) -> list[Issue]:
        """Return what is odd about the tables; reads them both, because what is wrong must be known before the run."""
        notes = dict.fromkeys((*self._train.notes, *self._test.notes))
        return [Issue(WARNING, "task", note) for note in notes]

    @cached_property
    def _train(self) -> Reading:
        source = self._parts["train"]
        folder, read = self._folder(source), partial(self._read, source)
        return _usable(self._cache.reading(folder, read, type(self)) if self._cache else read(folder), folder)

    @cached_property
    def _test(self) -> Reading:
        source = self._parts["test"]
        return _usable(self._read(source, self._folder(source)), self._folder(source))

    def _read(self, source: Source, folder: Path) -> Reading:
        """Read all rows of a table, each named by its place among them."""
        wanted = (source.label, *source.text, *filter(None, (source.needed,)))
        table = read_table(folder, TableFormat(source.file, header=source.header), wanted)
        items = [
            Item(str(place), partial(self._pair, source, row), place=f"{source.file} line {row.line}")
            for place, row in enumerate(table.rows)
            if not source.needed or not row.complete or row.cells[source.needed]
        ]
        reading = read_items(items, Shape(self.input_shape, np.int32))
        return Reading(reading.examples, reading.names, (), reading.problems, table.notes)

    def _pair(self, source: Source, row: Row) -> Pair:
        label = look_up(row.cell(source.label), source.values)
        return self.numbers(JOINT.join(row.cells[column] for column in source.text)), label

    def _folder(self, source: Source) -> Path:
        """Return the folder that holds a table.

        Raises
        ------
        DataError
            If there is none; it names the other training texts if those are there.
        """
        if self.data_path is None:
            raise DataError("AG News needs a data folder and none is given; name it in task.data-path")
        if found := self._found(source):
            return found
        where = f"in {self.data_path / FOLDERS[0]} or {FOLDERS[1]}"
        remedy = f"put it there, or let task.data-path name the folder that has one of these{self._others(source)}"
        raise DataError(f"AG News: cannot read {source.file} {where}; {remedy}")

    def _found(self, source: Source) -> Path | None:
        folders = [self.data_path / name for name in FOLDERS] if self.data_path else []
        return next((folder for folder in folders if os.access(folder / source.file, os.R_OK)), None)

    def _others(self, source: Source) -> str:
        """Say which other training texts are there; nothing stands in for test texts."""
        others = {name: other for name, other in SOURCES.items() if name != "test" and other.file != source.file}
        there = [name for name, other in others.items() if source is not SOURCES["test"] and self._found(other)]
        named = " or ".join(f'train = "{name}"' for name in there)
        return f"; or choose in task.args what is there: {named}" if there else ""


def _usable(reading: Reading, folder: Path) -> Reading:
    """Return what was read, or raise ``DataError`` if there is nothing, or anything that cannot be used."""
    if reading.problems:
        remedy = "put in the files as they were published:"
        raise BadDataError(folder, reading.problems, reading.total, remedy)
    if not reading.total:
        raise DataError(f"no texts in {folder}; put in the files as they were published")
    return reading
