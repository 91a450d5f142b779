"""Folder of a sweep: the copy of its file, its database and its runs, of one sweep at a time."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server_app.sweep.database import SweepError
from tasks.files import replace_file, write_problem

COPY = "sweep.toml"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a folder if it is not there, and keep other sweeps out of it while the block runs.

    Raises
    ------
    SweepError
        If another one is at work there, or it cannot be written.
    """
    if problem := write_problem(folder):
        raise SweepError(
            f"the sweep cannot be recorded in {folder}: {problem}; choose another folder with --output DIR"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                advice = "wait for its end, or choose another folder with --output DIR"
                raise SweepError(f"another sweep is at work in {folder}: {advice}") from error
        yield
    finally:
        os.close(lock)


def keep_copy(folder: Path, file: Path) -> None:
    """Keep the sweep file in the folder."""
    replace_file(folder / COPY, file.read_bytes())
