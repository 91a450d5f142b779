"""Spool: updates that would not fit into memory lie in a file, and are read through a memory map, block by block.

The file has no name from its first moment on, so nothing of it is left behind however the process ends. It is written
by ordinary writes, because a full disk is an error there and a killed process in a map that is written to. Pages that
were read are given back at once: the operating system keeps what it has room for.
"""

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.files import WriteError

Vector = npt.NDArray[np.floating[Any]]

CGROUP = Path("/sys/fs/cgroup/memory.max")


def half_of_memory() -> int:
    """Return half of the bytes of memory that this machine has, or the container that this process is in."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else ""
    return min(pages, int(limit) if limit.isdecimal() else pages) // 2


@dataclass(frozen=True)
class Spool:
    """Where the updates of a round go: ``memory`` bytes stay in memory, rounds with more lie in a file in ``folder``.

    Without a folder it is the system's for temporary files; ``memory`` 0 = half of what the machine has.
    """

    memory: int = 0
    folder: Path | None = None

    def store(self, rows: int, length: int, dtype: np.dtype[np.floating[Any]]) -> "MemoryStore | FileStore":
        """Return what keeps so many updates, each a vector (length,).

        Raises
        ------
        WriteError
            If they do not fit into memory, nor onto the disk.
        """
        size = rows * length * dtype.itemsize
        if size <= (self.memory or half_of_memory()):
            return MemoryStore()
        return FileStore(self.folder or Path(tempfile.gettempdir()), rows, length, dtype)


class MemoryStore:
    """Keeps updates in memory, as they are."""

    def keep(self, update: Vector) -> Vector:
        """Return the update."""
        return update


class FileStore:
    """Keeps updates in a file without a name; it goes when the last of them is no longer used.

    Raises
    ------
    WriteError
        If the disk has no room for all of them.
    """

    def __init__(self, folder: Path, rows: int, length: int, dtype: np.dtype[np.floating[Any]]) -> None:
        self._folder, self._length, self._dtype = folder, length, dtype
        page = mmap.PAGESIZE
        self._stride = -(-length * dtype.itemsize // page) * page  # each update begins with a page of its own
        self._rows = 0
        size = rows * self._stride
        with self._named_errors(size):
            if shutil.disk_usage(folder).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed with the last update
            self._file.truncate(size)
            self._map = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ)

    def keep(self, update: Vector) -> Vector:
        """Write an update (length,) and return it as it lies in the file."""
        place = self._rows * self._stride
        with self._named_errors(len(self._map)):
            self._file.seek(place)
            self._file.write(update.data)
            self._file.flush()
        self._rows += 1
        return np.frombuffer(self._map, self._dtype, self._length, place)

    @contextmanager
    def _named_errors(self, size: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"{size / 1e9:.3g} GB of updates into {self._folder}"
            unwritten = WriteError(error.errno, error.strerror or str(error), what)
            unwritten.advice = "make room there, or raise federation.memory, which they do not fit into"
            raise unwritten from error


def page_release(vectors: Sequence[Vector]) -> Callable[[slice], None]:
    """Return what gives back the memory of some columns of those vectors that lie in a file; others stay."""
    places = [place for vector in vectors if (place := _place(vector))]

    def release(columns: slice) -> None:
        for pages, start, itemsize in places:
            first = (start + columns.start * itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
            pages.madvise(mmap.MADV_DONTNEED, first, start + columns.stop * itemsize - first)

    return release


def _place(vector: Vector) -> tuple[mmap.mmap, int, int] | None:
    """Return the map that a vector lies in, where in it, and the bytes of a number; None if it lies in no file."""
    base: Any = vector
    while isinstance(base, np.ndarray):
        base = base.base
    pages = base.obj if isinstance(base, memoryview) else base
    if not isinstance(pages, mmap.mmap):
        return None
    origin = np.frombuffer(pages, np.uint8, 1)
    return pages, _address(vector) - _address(origin), vector.itemsize


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
