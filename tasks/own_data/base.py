"""Tasks on own data, what they have in common: declared classes, one folder, examples read once, a list of problems."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import numpy.typing as npt

from tasks.base import DataError, Examples, Task
from tasks.issues import WARNING, Issue
from tasks.own_data.files import BadDataError, UnusableError, as_stored, existing_folder, listing, nfc, real, summary
from tasks.own_data.reading import Cache, Place, Reading, folder_state
from tasks.plugins import did_you_mean

if TYPE_CHECKING:
    from tasks.own_data.tables import Row, TableFormat

T = TypeVar("T")
TEST_FOLDER = "test"


class OwnDataTask(Task):
    """Examples in files that each site brings along; what they must look like is declared once for all sites.

    Parameters
    ----------
    classes
        Names of the classes, at least two, in the order of their numbers.
    values
        What stands for each class in the files, in the same order; the names themselves if left out.
    test_path
        Folder of the clean test data on the server, laid out like the data folder and relative to it; left out: the
        folder ``test`` in the data folder, if there is one. Sites never look there.
    data_path
        The data folder.
    bad_data
        What to do about examples that cannot be used: ``refuse`` all, or ``skip`` those. Test data must always fit.
    without
        Classes that may have no example left where some are skipped; any other class must keep one, unless a site
        has nothing of it.
    cache
        Keeps the decoded training examples for other processes, and many of them out of memory; None decodes them in
        each process.

    Raises
    ------
    DataError
        If the declarations do not fit each other.
    """

    brings_own_data = True

    def __init__(
        self,
        classes: Sequence[str],
        values: Sequence[str | int] = (),
        test_path: str = "",
        data_path: Path | str = "data",
        bad_data: str = "refuse",
        cache: Cache | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self.class_names = distinct("classes", classes, str)
        if len(self.class_names) < 2:
            raise DataError(f"classes must name at least 2 classes, got {list(self.class_names)}")
        self.values = tuple(map(str, distinct("values", values, str, int))) or self.class_names
        if len(self.values) != len(self.class_names):
            raise DataError(f"{len(self.class_names)} classes but {len(self.values)} values: one for each is expected")
        self._without = distinct("without", without, str)
        for name in self._without:
            if name not in self.class_names:
                raise DataError(f"without names an unknown class {name!r}{did_you_mean(name, self.class_names)}")
        self.root = Path(data_path).absolute()
        self._test_path, self._bad_data, self._cache = test_path, bad_data, cache

    @abstractmethod
    def read(self, root: Path) -> Reading:
        """Read all examples of a data folder.

        Raises
        ------
        DataError
            If there is nothing to read, or a table is damaged as a whole.
        """

    def remarks(self, root: Path) -> tuple[str, ...]:
        """Say by which rules a data folder was read that its owner must know; called after :meth:`read`."""
        return ()

    def check(self) -> None:
        """Raise ``DataError`` unless the data folder is there, and a named test folder, which must not contain it."""
        existing_folder(self.root)
        if not self._test_path:
            return
        existing_folder(self.test_root)
        if real(self.root).is_relative_to(real(self.test_root)):
            raise DataError(
                f"test_path = {self._test_path!r} is the data folder {self.root} or contains it, "
                "so the test data would be trained on; name a folder for the test data alone"
            )

    @property
    def test_root(self) -> Path:
        """Folder of the test data; it need not exist, nor a home folder of the server in its path on a node."""
        return as_stored(self.root, os.path.expanduser(self._test_path or TEST_FOLDER))

    def left_out(self, root: Path) -> set[Path]:
        """Return the resolved folders that hold test data, which is never trained on, but for one around ``root``."""
        found = {real(as_stored(root, TEST_FOLDER)), real(self.test_root)}
        return {path for path in found if not real(root).is_relative_to(path)}

    def has_test_examples(self) -> bool:
        """Tell whether the folder with clean test data is there."""
        return bool(self._test_path) or self.test_root.is_dir()

    def train_examples(self) -> Examples:
        """Return the examples of the data folder, read once per task object.

        Raises
        ------
        DataError
            If there are none that can be used, or some cannot and the run refuses that.
        """
        return self._train.examples

    def test_examples(self) -> Examples:
        """Return the examples of the test folder, read once per task object.

        Raises
        ------
        DataError
            If there are none, or some cannot be used.
        """
        return self._test.examples

    def data_state(self, part: str, cache: Path) -> str:
        """Return a digest of path, size and times of change of all files below the folder."""
        return folder_state(self.root if part == "train" else self.test_root, cache)

    def example_names(self, ids: npt.NDArray[np.int64]) -> Sequence[str]:
        """Return the files of examples, relative to the data folder, or their lines in the table."""
        return [self._train.names[number] for number in ids]

    def groups(self) -> npt.NDArray[np.str_] | None:
        """Return the group of each training example, or None if there are no groups."""
        groups = self._train.groups
        return np.array(groups) if any(groups) else None

    def data_issues(self) -> list[Issue]:
        """Return what was left out of the data or read by a rule, and why decoded examples are not kept."""
        reading = self._train
        notes = [*reading.notes, *(self._test.notes if "_test" in vars(self) else ())]  # the server alone reads both
        found = [Issue(WARNING, "task", note) for note in dict.fromkeys(notes)]
        if self._cache and self._cache.problem:
            found.append(Issue(WARNING, "task.cache-path", self._cache.problem))
        if not reading.problems:
            return found
        head = f"{summary(reading.problems, reading.total)} in {self.root} and are left out:"
        return [Issue(WARNING, "task", "\n".join([head, *listing(reading.problems)])), *found]

    def label(self, value: str) -> int:
        """Return the class number for what stands in the files.

        Raises
        ------
        UnusableError
            If no class is declared for it.
        """
        return look_up(value, self.values)

    @cached_property
    def _train(self) -> Reading:
        root = existing_folder(self.root)
        reading = self._cache.reading(root, self._noted, type(self)) if self._cache else self._noted(root)
        return self._accepted(self.root, reading, self._bad_data == "skip")

    @cached_property
    def _test(self) -> Reading:
        root, cache = existing_folder(self.test_root), self._cache
        reading = cache.reading(root, self._noted, type(self), few=False) if cache else self._noted(root)
        return self._accepted(self.test_root, reading, skip=False)

    def place(self, root: Path) -> Place | None:
        """Return where the examples of a data folder go if they are too many for memory, for :func:`read_items`."""
        return self._cache.place(root, type(self)) if self._cache else None

    def _noted(self, root: Path) -> Reading:
        reading = self.read(root)
        return replace(reading, notes=(*reading.notes, *self.remarks(root)))

    def _accepted(self, root: Path, reading: Reading, skip: bool) -> Reading:
        """Refuse what was read if nothing is usable, or if something is not and is not to be skipped."""
        if not reading.total:
            raise DataError(f"no examples in {root}; {self.expected()}")
        if reading.problems and not (skip and reading.names):
            leave = ", or set task.bad-data = 'skip' to leave them out" if reading.names and root == self.root else ""
            raise BadDataError(root, reading.problems, reading.total, f"correct them{leave}:")
        if lost := self._lost_classes(reading):
            names = ", ".join(map(repr, lost))
            accept = f"correct them, or, if sites may lack {names}, add it to without = [...] in task.args:"
            raise BadDataError(
                root, reading.problems, reading.total, f"no example is left of {names}; {accept}", len(lost)
            )
        return reading

    def _lost_classes(self, reading: Reading) -> list[str]:
        """Return the classes without a usable example of which some may be among those that cannot be used."""
        costs = {nfc(problem.value) for problem in reading.problems}
        unknown = bool(costs - set(self.values))
        labels = reading.examples.labels
        return [
            name
            for label, (name, value) in enumerate(zip(self.class_names, self.values, strict=True))
            if (unknown or value in costs) and name not in self._without and not (labels == label).any()
        ]

    @abstractmethod
    def expected(self) -> str:
        """Say in half a sentence how the data folder must be laid out."""


class ListedTask(OwnDataTask):
    """Examples of own data that a table lists with their labels, one in each row."""

    _table: "TableFormat"
    _label: str

    @property
    def table_format(self) -> "TableFormat":
        """How the table is written."""
        return self._table

    @property
    def label_column(self) -> str:
        """Column of the label."""
        return self._label

    @abstractmethod
    def row_name(self, row: "Row") -> str:
        """Return the name of the example in a row, as :meth:`example_names` does."""

    def rows_by_name(self, *columns: str) -> "dict[str, Row]":
        """Return the rows of the data folder's table by name; of several with one name the first, as is trained on.

        Raises
        ------
        DataError
            If the table cannot be read, or lacks one of these ``columns`` or that of the label.
        """
        from tasks.own_data.tables import read_table  # it imports this module

        rows = read_table(self.root, self._table, (*columns, self._label)).rows
        return {self.row_name(row): row for row in reversed(rows)}


def look_up(value: str, values: Sequence[str]) -> int:
    """Return the place of ``value`` among ``values`` in NFC, or raise ``UnusableError`` with the closest one."""
    if nfc(value) not in values:
        raise UnusableError(f"unknown class {nfc(value)!r}{did_you_mean(nfc(value), values)}")
    return values.index(nfc(value))


def distinct(name: str, given: Sequence[T], *kinds: type) -> tuple[T, ...]:
    """Return ``given`` as a tuple, texts in NFC, or raise ``DataError`` unless they differ and are of these kinds."""
    fits = isinstance(given, list | tuple) and all(type(value) in kinds and value != "" for value in given)
    values = tuple(cast(T, nfc(value)) if isinstance(value, str) else value for value in given) if fits else ()
    if not fits or len(set(values)) < len(given):
        kind = " or ".join({str: "texts", int: "whole numbers"}[kind] for kind in kinds)
        alike = " (the same in Unicode NFC)" if fits and len(set(given)) == len(given) else ""
        raise DataError(
            f'{name} must be a list of different {kind}, such as ["benign", "malignant"], got {given!r}{alike}'
        )
    return values
