"""Files below a data folder, and nothing beyond it; and what is wrong with them.

Names come from tables, and settings from the server. What, where and why is for the eyes of the data's owner.
"""

import os
import unicodedata
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tasks.base import DataError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
NO_DATA = frozenset(  # what systems and tools leave in anybody's folders; hidden names are left out anyway
    (
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "__macosx",
        "icon\r",
        "lost+found",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "__pycache__",
    )
)
MOST_LISTED = 10


class UnusableError(Exception):
    """Why one example cannot be used."""


def nfc(text: str) -> str:
    """Return a text in the Unicode form NFC: macOS stores "é" as two characters, other systems as one.

    >>> nfc("e\u0301") == "\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Problem:
    """One thing that cannot be used: ``where`` is a path inside the data folder, or a table and its line.

    ``count`` is the number of examples that it costs. ``value`` is what stands for their class in the files, declared
    or not; empty if that is not known.
    """

    where: str
    reason: str
    count: int = 1
    value: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.reason}"  # names are anybody's: they must not forge lines of a log
        return "".join(sign if sign.isprintable() else "?" for sign in text)


class BadDataError(DataError):
    """Data of which a part, or everything, cannot be used.

    The message names files and belongs to whoever owns them; ``summary`` has counts only and may leave the site.
    ``lost`` is the number of classes of which nothing can be used.
    """

    def __init__(self, root: Path, problems: Sequence[Problem], total: int, remedy: str, lost: int = 0) -> None:
        self.summary = summary(problems, total)
        if lost:
            self.summary += f" and none is left of {lost} " + ("class" if lost == 1 else "classes")
        super().__init__("\n".join([f"{self.summary} in {root}; {remedy}", *listing(problems)]))


def lost_examples(problems: Sequence[Problem]) -> int:
    """Return how many examples the problems cost."""
    return sum(problem.count for problem in problems)


def summary(problems: Sequence[Problem], total: int) -> str:
    """Return how many examples the problems cost, without any name.

    >>> summary([Problem("a.png", "damaged")], 12)
    '1 of 12 examples cannot be used'
    """
    return f"{lost_examples(problems)} of {total} examples cannot be used"


def listing(problems: Sequence[Problem]) -> list[str]:
    """Return one line for each of the first problems, and one that counts the others."""
    lines = [f"    {problem}" for problem in problems[:MOST_LISTED]]
    more = len(problems) - MOST_LISTED
    return [*lines, f"    and {more} more"] if more > 0 else lines


def real(path: Path) -> Path:
    """Return an absolute path without links; a circle of links stays as it is."""
    return Path(os.path.realpath(path))


def as_stored(root: Path, name: str) -> Path:
    """Return the path ``name`` from ``root``, each part in the Unicode form in which it is on the disk.

    What is there as it is spelled comes first; what is not there at all stays as it is spelled.
    """
    path = root
    for part in Path(name).parts:
        found = path / part
        if not part.isascii() and not os.path.lexists(found) and os.path.isdir(path):
            found = path / _stored_names(path, path.stat().st_mtime_ns).get(nfc(part), part)
        path = found
    return path


@lru_cache(maxsize=64)
def _stored_names(folder: Path, changed: int) -> dict[str, str]:
    """Return the names in a folder by their NFC form; ``changed`` is when the folder was, which outdates the answer."""
    try:
        return {nfc(name): name for name in sorted(os.listdir(folder), reverse=True)}
    except OSError:  # whoever opens the file learns why
        return {}


def inside(root: Path, name: str) -> Path:
    """Return the file or folder ``name`` below ``root``, in whatever Unicode form it is stored.

    Raises
    ------
    UnusableError
        If it lies elsewhere, by its name or by a link.
    """
    if "\0" in name:
        raise UnusableError("the path holds a zero byte")
    path = as_stored(root, name)
    if Path(name).is_absolute() or not real(path).is_relative_to(real(root)):
        raise UnusableError("lies outside of the data folder")
    return path


def existing_folder(root: Path, name: str = ".") -> Path:
    """Return the folder ``name`` below ``root``.

    Raises
    ------
    DataError
        If it is not there, or not below ``root``.
    """
    try:
        path = inside(root, name)
    except UnusableError as problem:
        raise DataError(f"the folder {name!r} of {root} {problem}") from problem
    if not path.is_dir():
        raise DataError(f"there is no folder {path}")
    return path


def entries(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted by name; hidden files and what systems leave there (``NO_DATA``) are left out.

    Raises
    ------
    DataError
        If the folder cannot be read.
    """
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    return [path for path in found if shows_data(path.name)]


def shows_data(name: str) -> bool:
    """Tell whether a file or folder of this name is anybody's data: not hidden, and not left there by a system."""
    return not name.startswith(".") and name.lower() not in NO_DATA


def files_below(folder: Path, without: Container[Path] = ()) -> Iterator[Path]:
    """Yield every file of a folder and its subfolders, sorted; a link to a folder is yielded, not followed.

    Folders whose resolved path is in ``without`` are left out.

    Raises
    ------
    DataError
        If a folder cannot be read.
    """
    for path in entries(folder):
        link = path.is_symlink()
        below = not link and path.is_dir()  # asking a link may need rights that the folder behind it denies
        if without and (link or below) and real(path) in without:
            continue
        if below:
            yield from files_below(path, without)
        else:
            yield path


def everything_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder once, also hidden ones and those behind links that lead to folders in it."""
    seen = set()
    for place, names, files in os.walk(folder, followlinks=True):
        names[:] = sorted(name for name in names if real(Path(place, name)).is_relative_to(real(folder)))
        if real(Path(place)) in seen:
            names.clear()
            continue
        seen.add(real(Path(place)))
        yield from (Path(place, name) for name in sorted(files))


def count_files(folder: Path, without: Container[Path] = ()) -> int:
    """Return the number of files below a folder as far as it can be read, at least 1; no link is followed."""
    count = 0
    with suppress(DataError):  # that the folder cannot be used is said anyway
        for _ in () if folder.is_symlink() else files_below(folder, without):
            count += 1
    return max(1, count)


def readable_image(root: Path, path: Path) -> Path:
    """Return the path of a file that may be an image.

    Raises
    ------
    UnusableError
        If it is no file, has another ending, cannot be read, or a link leads outside of ``root``.
    """
    inside(root, str(path.relative_to(root)))
    if path.suffix.lower() not in IMAGE_ENDINGS:
        raise UnusableError(f"is not an image; known endings: {', '.join(IMAGE_ENDINGS)}")
    if os.path.isdir(path):
        raise UnusableError("is a folder or a link to one; images are expected here")
    if not os.path.exists(path):
        raise UnusableError("there is no such file")
    if not os.access(path, os.R_OK):
        raise UnusableError("may not be read by this user")
    return path
