"""Lists of published data sets: which files there are, and which class number belongs to each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.base import DataError, Labels


@dataclass(frozen=True)
class Listing:
    """The examples of one part in their published order: names of files below ``root``, and the label of each, (n,).

    ``sources`` are the files that say so; the masks of a data set of masks are named in ``masks``.
    """

    root: Path
    names: Sequence[str]
    labels: Labels
    sources: tuple[Path, ...]
    masks: Sequence[str] = ()

    def take(self, positions: npt.NDArray[np.int64]) -> "Listing":
        """Return the examples at ``positions``."""
        names, masks = ([given[number] for number in positions] for given in (self.names, self.masks or self.names))
        return Listing(self.root, names, self.labels[positions], self.sources, masks if self.masks else ())


def read_lines(path: Path, title: str) -> list[str]:
    """Return the lines of a list of a data set that are not empty.

    Raises
    ------
    DataError
        If it is missing or no text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{title}: cannot read the list {path}: {error}; fetch it again") from error


def read_pairs(path: Path, title: str) -> tuple[list[str], Labels]:
    """Return names and class numbers (n,) of a list with lines ``name number``.

    Raises
    ------
    DataError
        If it is missing, or a line is another; the line is named.
    """
    names, labels = [], []
    for number, line in enumerate(read_lines(path, title), 1):
        parts = line.rsplit(maxsplit=1)
        if len(parts) < 2 or not parts[1].isdecimal() or len(parts[1]) > 9:
            raise DataError(f"{title}: {path}, line {number}: a file and a class number expected, got {line[:100]!r}")
        names.append(parts[0])
        labels.append(int(parts[1]))
    return names, np.array(labels, np.int64)


def check_labels(path: Path, names: Sequence[str], labels: Labels, classes: int, title: str) -> None:
    """Raise ``DataError`` with the first file whose class number is not 0 to ``classes`` - 1."""
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        first = outside[0]
        raise DataError(
            f"{title}: {path} gives {names[first]} the class {labels[first]}; 0 to {classes - 1} are expected"
        )
