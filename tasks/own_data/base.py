"""Tasks on own data, what they have in common: declared classes, one folder, examples read once, a list of problems."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tasks.base import DataError, Examples, Task
from tasks.issues import WARNING, Issue
from tasks.own_data.files import BadDataError, Problem, UnusableError, existing_folder, listing, summary
from tasks.own_data.reading import Cache, Reading, folder_state
from tasks.plugins import did_you_mean

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
    cache
        Keeps the decoded training examples for other processes; None decodes them in each.

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
    ) -> None:
        self.class_names = distinct("classes", classes, str)
        if len(self.class_names) < 2:
            raise DataError(f"classes must name at least 2 classes, got {list(self.class_names)}")
        self.values = tuple(map(str, distinct("values", values, str, int))) or self.class_names
        if len(self.values) != len(self.class_names):
            raise DataError(f"{len(self.class_names)} classes but {len(self.values)} values: one for each is expected")
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

    def check(self) -> None:
        """Raise ``DataError`` unless the data folder is there, and the test folder if one is named."""
        existing_folder(self.root)
        if self._test_path:
            existing_folder(self.test_root)

    @property
    def test_root(self) -> Path:
        """Folder of the test data; it need not exist."""
        return self.root / (self._test_path or TEST_FOLDER)

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
        """Return what was left out of the data, with names and reasons, and why decoded examples are not kept."""
        reading = self._train
        unkept = [Issue(WARNING, "task.cache-path", self._cache.problem)] if self._cache and self._cache.problem else []
        if not reading.problems:
            return unkept
        head = f"{summary(reading.problems, reading.total)} in {self.root} and are left out:"
        return [Issue(WARNING, "task", "\n".join([head, *listing(reading.problems)])), *unkept]

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
        reading = self._cache.reading(root, self.read, type(self)) if self._cache else self.read(root)
        return self._accepted(self.root, reading, self._bad_data == "skip")

    @cached_property
    def _test(self) -> Reading:
        return self._accepted(self.test_root, self.read(existing_folder(self.test_root)), skip=False)

    def _accepted(self, root: Path, reading: Reading, skip: bool) -> Reading:
        """Refuse what was read if nothing is usable, or if something is not and is not to be skipped."""
        if not reading.total:
            raise DataError(f"no examples in {root}; {self.expected()}")
        if reading.problems and not (skip and reading.names):
            leave = ", or set task.bad-data = 'skip' to leave them out" if reading.names and root == self.root else ""
            raise BadDataError(root, reading.problems, reading.total, f"correct them{leave}:")
        return reading

    @abstractmethod
    def expected(self) -> str:
        """Say in half a sentence how the data folder must be laid out."""


def look_up(value: str, values: Sequence[str]) -> int:
    """Return the place of ``value`` among ``values``, or raise ``UnusableError`` with the closest one."""
    if value not in values:
        raise UnusableError(f"unknown class {value!r}{did_you_mean(value, values)}")
    return values.index(value)


def distinct(name: str, given: Sequence[T], *kinds: type) -> tuple[T, ...]:
    """Return ``given`` as a tuple, or raise ``DataError`` unless it is a list of different values of these kinds."""
    fits = isinstance(given, list | tuple) and all(type(value) in kinds and value != "" for value in given)
    if not fits or len(set(given)) < len(given):
        kind = " or ".join({str: "texts", int: "whole numbers"}[kind] for kind in kinds)
        raise DataError(f'{name} must be a list of different {kind}, such as ["benign", "malignant"], got {given!r}')
    return tuple(given)


def attempt(where: str, read: Callable[[], T], problems: list[Problem]) -> T | None:
    """Return what ``read`` returns; if it is unusable, note that and return None."""
    try:
        return read()
    except UnusableError as problem:
        problems.append(Problem(where, str(problem)))
        return None
