"""Example store: features and labels of one data set in files that are mapped, never in memory at once.

Rows are made once, block by block, by the first process that needs them, while others wait for it. What an interrupted
process has finished stays; the next one goes on from there. Files are written, not mapped, while they grow: memory
stays that of one block, and a full disk is an error. A file's name is a digest of all that its content depends on, so
that nothing old is ever taken for something new.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.base import DataError, Labels
from tasks.files import private_folder, replace_file

BLOCK = 256
SECONDS_BETWEEN_MARKS = 2.0
Lost = tuple[tuple[int, str], ...]
Block = tuple[npt.NDArray[Any], Labels, Lost]
"""Features (m, ...) and labels (m, ...) of those rows that could be made, and place and reason of each other one."""


@dataclass(frozen=True)
class RowShape:
    """Shape and type of one example's features, and the shape of its label."""

    features: tuple[int, ...]
    dtype: npt.DTypeLike
    label: tuple[int, ...] = ()

    @property
    def columns(self) -> tuple[tuple[tuple[int, ...], npt.DTypeLike], ...]:
        """Shape and type of a row of features, and of a row of labels."""
        return (self.features, self.dtype), (self.label, np.int64)

    @property
    def bytes(self) -> int:
        """Bytes of one example: its features and its label of int64."""
        return int(np.prod(self.features)) * np.dtype(self.dtype).itemsize + 8 * int(np.prod(self.label))


@dataclass(frozen=True)
class Rows:
    """What is to be made: ``count`` rows of one shape; ``title`` is for the progress bar.

    ``make`` returns the rows ``start`` to ``stop`` - 1, without those that cannot be made.
    """

    title: str
    count: int
    shape: RowShape
    make: Callable[[int, int], Block]


@dataclass(frozen=True)
class Kept:
    """Features (n, ...) and labels (n, ...), mapped from files, and which rows could not be made, with the reason."""

    features: Tensor
    labels: Labels
    lost: Lost


class ExampleStore:
    """Files of examples in a folder that only this user may enter.

    Parameters
    ----------
    folder
        Where the files are; made if it is not there.
    """

    kind: ClassVar[str] = "examples"
    title: ClassVar[str] = "decoded examples"
    error: ClassVar[type[DataError]] = DataError

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))

    def kept(self, key: str) -> Kept | None:
        """Return what was kept under a key, or None."""
        features, labels = self._files(key)
        try:
            # Copy on write: torch wants memory that it might write to, and nothing is written back.
            rows = np.load(features, mmap_mode="c", allow_pickle=False)
            found = np.load(labels, mmap_mode="c", allow_pickle=False)
            lost = json.loads(self._lost(key).read_text()) if self._lost(key).exists() else ()
            # Class numbers are small and looked at all the time, the labels of pixels are neither.
            given = np.array(found) if found.ndim == 1 else found
            return Kept(torch.from_numpy(rows), given, tuple((int(row), str(reason)) for row, reason in lost))
        except (OSError, ValueError, EOFError):  # not there, or cut short by a full disk or a crash: made anew
            return None

    def keep(self, key: str, rows: Rows) -> Kept:
        """Make what is not made yet, keep it, and return it.

        Raises
        ------
        DataError
            If a file cannot be written, or what makes the rows raises it.
        """
        try:
            private_folder(self.folder)
            with self._locked(key):
                found = self.kept(key)  # another process may have made it meanwhile
                if found is not None:
                    return found
                self._write(key, rows)
        except OSError as error:
            raise self.error(
                f"cannot keep {self.title} in {self.folder}: {error.strerror or error}; they need "
                f"{rows.count * rows.shape.bytes / 1e6:.0f} MB: name another folder in task.cache-path"
            ) from error
        found = self.kept(key)
        assert found is not None
        return found

    def _write(self, key: str, rows: Rows) -> None:
        """Fill the partial files, from the block at which the last process was interrupted, and give them their names.

        The features come last: without them nothing counts as kept.
        """
        paths, widths = self._partial(key), rows.shape.columns
        done, kept, lost = self._done(key, rows)
        with ExitStack() as stack:
            files: list[IO[bytes]] = [stack.enter_context(_opened(path, kept > 0)) for path in paths]
            for file, (width, dtype) in zip(files, widths, strict=True):
                _go_to_end(file, width, dtype, rows.count, kept)
            kept, lost = self._fill(key, rows, files, (done, kept, lost))
            for file, (width, dtype) in zip(files, widths, strict=True):
                _write_header(file, width, dtype, kept)
                _to_disk(file)
        self._lost(key).unlink(missing_ok=True)
        if lost:
            replace_file(self._lost(key), json.dumps(lost).encode(), private=True)
        for partial, path in reversed(list(zip(paths, self._files(key), strict=True))):
            os.replace(partial, path)
        self._mark(key).unlink(missing_ok=True)

    def _fill(
        self, key: str, rows: Rows, files: list[IO[bytes]], state: tuple[int, int, list[tuple[int, str]]]
    ) -> tuple[int, list[tuple[int, str]]]:
        done, kept, lost = state
        marked = time.monotonic()
        with progress(rows.title, rows.count) as show:
            for start in range(done, rows.count, BLOCK):
                stop = min(start + BLOCK, rows.count)
                features, labels, missing = rows.make(start, stop)
                for file, array in zip(files, (features, labels), strict=True):
                    file.write(np.ascontiguousarray(array).data)
                kept, lost = kept + len(labels), [*lost, *missing]
                show(stop)
                if time.monotonic() > marked + SECONDS_BETWEEN_MARKS:
                    for file in files:
                        _to_disk(file)
                    replace_file(self._mark(key), json.dumps([stop, kept, lost]).encode(), private=True)
                    marked = time.monotonic()
        return kept, lost

    def _done(self, key: str, rows: Rows) -> tuple[int, int, list[tuple[int, str]]]:
        """Return how many rows an interrupted process has tried and made, and those that could not be made."""
        try:
            done, kept, lost = json.loads(self._mark(key).read_text())
            whole = [
                _is_column(path, width, dtype, rows.count, kept)
                for path, (width, dtype) in zip(self._partial(key), rows.shape.columns, strict=True)
            ]
            return (int(done), int(kept), [(int(row), str(why)) for row, why in lost]) if all(whole) else (0, 0, [])
        except (OSError, ValueError, TypeError, EOFError):
            return 0, 0, []

    def _files(self, key: str) -> tuple[Path, Path]:
        return self.folder / f"{self.kind}-{key}.npy", self.folder / f"{self.kind}-{key}.labels.npy"

    def _partial(self, key: str) -> tuple[Path, Path]:
        start = f"{self.kind}-{key}"
        return self.folder / f"{start}.partial.npy", self.folder / f"{start}.labels.partial.npy"

    def _lost(self, key: str) -> Path:
        return self.folder / f"{self.kind}-{key}.lost.json"

    def _mark(self, key: str) -> Path:
        return self.folder / f"{self.kind}-{key}.done"

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Wait until no other process makes the same; a process that dies gives the lock back."""
        lock = os.open(self.folder / f"{self.kind}-{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _opened(path: Path, goes_on: bool) -> IO[bytes]:
    """Open a file that only this user may read, with or without what it holds."""
    flags = os.O_RDWR | os.O_CREAT | (0 if goes_on else os.O_TRUNC)
    return os.fdopen(os.open(path, flags, 0o600), "r+b")


def _go_to_end(file: IO[bytes], width: tuple[int, ...], dtype: npt.DTypeLike, count: int, kept: int) -> None:
    """Write the header of a file of rows, and leave it at the place of the next row."""
    _write_header(file, width, dtype, count)
    file.seek(kept * int(np.prod(width)) * np.dtype(dtype).itemsize, os.SEEK_CUR)
    file.truncate()


def _write_header(file: IO[bytes], width: tuple[int, ...], dtype: npt.DTypeLike, count: int) -> None:
    """Write that a file has so many rows; NumPy leaves room in it, so that every count takes as many bytes."""
    file.seek(0)
    facts = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (count, *width)}
    np.lib.format.write_array_header_1_0(file, facts)


def _to_disk(file: IO[bytes]) -> None:
    """Let what was written survive a crash of the machine."""
    file.flush()
    os.fsync(file.fileno())


def _is_column(path: Path, width: tuple[int, ...], dtype: npt.DTypeLike, count: int, kept: int) -> bool:
    """Tell whether a file is one of such rows, and holds at least ``kept`` of them."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, found = np.lib.format.read_array_header_1_0(file)
        needed = file.tell() + kept * int(np.prod(width)) * np.dtype(dtype).itemsize
    return shape == (count, *width) and found == dtype and path.stat().st_size >= needed


@contextmanager
def progress(title: str, count: int) -> Iterator[Callable[[int], None]]:
    """Show how many of ``count`` examples are done: a bar on a terminal, else a line for each tenth."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=count)
            yield lambda done: bar.update(task, completed=done)
        return
    shown = 0

    def show(done: int) -> None:
        nonlocal shown
        tenth = 10 * done // count
        if tenth > shown and count > 10 * BLOCK:
            shown = tenth
            getLogger("flwr").info("%s: %d of %d", title, done, count)

    yield show
