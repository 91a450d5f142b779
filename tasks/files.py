"""Files that a crash or a full disk leaves with their old content or with the new one, and their digests."""

import hashlib
import json
import os
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class WriteError(OSError):
    """A file that cannot be written. ``advice`` may say how to go on."""

    advice = ""

    def __str__(self) -> str:
        """Return which file, why, and the advice."""
        return f"cannot write {self.filename}: {self.strerror}" + (f"; {self.advice}" if self.advice else "")


def user_path(path: str) -> str:
    """Return a path as a person writes it with ``~`` and ``~name`` replaced by home folders, as a shell does.

    Raises
    ------
    ValueError
        If there is no such home folder, or the path has characters that settings cannot carry.

    >>> user_path("runs/~"), user_path("./~runs")
    ('runs/~', './~runs')
    """
    if odd := sorted({char for char in path if unicodedata.category(char) in ("Cc", "Cs")}):
        raise ValueError(f"a path without {', '.join(map(ascii, odd))} is expected: no control characters, UTF-8")
    found = os.path.expanduser(path)
    if found.startswith("~"):
        whose = found.partition("/")[0]
        raise ValueError(f"no home folder {whose} is known here: write it in full, or ./{found} for a folder {whose}")
    return found


def write_problem(folder: Path, size: int = 2**16) -> str:
    """Return why ``size`` bytes cannot be written into a folder that may have to be made, or an empty text.

    It is tried, beside the first part of the path that is missing; nothing stays.
    """
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".winnow-", dir=there) as trial:
            below = Path(trial, folder.relative_to(there))
            below.mkdir(parents=True, exist_ok=True)
            (below / "file").write_bytes(bytes(size))
    except OSError as error:
        return f"{there}: {error.strerror}"
    return ""


def private_folder(folder: Path) -> None:
    """Make a folder for this user alone, and those above it that are missing; one that is there stays as it is."""
    if not folder.is_dir():
        private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def replace_file(path: Path, content: bytes, keep: Path | None = None, private: bool = False) -> None:
    """Write a file; what it held before is kept at ``keep``, if that is given.

    A ``private`` one can be read by this user alone, from its first moment; others are as the umask makes them.

    A crash between the two renames leaves the old content at ``keep`` and nothing at ``path``.

    Raises
    ------
    WriteError
        If it cannot be written; then the old content is still there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # one that a crash has left would keep its mode
        with open(partial, "wb", opener=_opener(0o600 if private else 0o666)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise _unwritten(path, error) from error


def _opener(mode: int) -> Callable[[str, int], int]:
    return lambda path, flags: os.open(path, flags, mode)


def append_text(path: Path, text: str) -> None:
    """Append to a file, and wait until the disk has it.

    Raises
    ------
    WriteError
        If that fails; then the file is as long as before, unless the message says that it is not.
    """
    length = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        unwritten = _unwritten(path, error)
        try:
            if path.exists():
                os.truncate(path, length)
        except OSError as second:
            unwritten.strerror = f"{unwritten.strerror}; a part may stand at its end ({second.strerror or second})"
        raise unwritten from error


def _unwritten(path: Path, error: OSError) -> WriteError:
    return WriteError(error.errno, error.strerror or str(error), str(path))


def content_digest(facts: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of a text, and of names, types, shapes and values of contiguous arrays in the order of names.

    >>> content_digest("", {})[:8]
    'e3b0c442'
    """
    found = hashlib.sha256(facts.encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        found.update(np.reshape(array, -1).data)
    return found.hexdigest()
