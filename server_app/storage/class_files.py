"""Confusion matrix and scores of each class, of the last and of the best model: CSV files in the run directory.

``per-class-last.csv`` has a line for each class: how often it occurs in the test data (pixels for masks), was predicted
and was predicted rightly, and its scores, empty where nothing defines them. ``confusion-last.csv`` has a line for each
true class and a column for each predicted one. Those of the best model end in ``-best.csv``.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.files import replace_file

if TYPE_CHECKING:
    from tasks.metrics import ClassReport  # slow to import, and who reads the files needs none of it

LAST, BEST = "last", "best"
PER_CLASS, CONFUSION = "per-class-{}.csv", "confusion-{}.csv"
MOST_LISTED = 1000
"""Classes beyond which nothing is written."""
COUNTS = ("support", "predicted", "correct")
SCORES = ("recall", "precision", "f1", "iou")


@dataclass(frozen=True)
class ClassRow:
    """One class: how often it occurs, was predicted, and was predicted rightly. Scores are None without a denominator.

    ``recall`` is the accuracy of the class, ``f1`` its Dice coefficient, ``iou`` its intersection over union.
    """

    name: str
    support: int
    predicted: int
    correct: int

    @property
    def recall(self) -> float | None:
        """Share of its examples that are predicted rightly."""
        return self._share(self.support)

    @property
    def precision(self) -> float | None:
        """Share of its predictions that are right."""
        return self._share(self.predicted)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of both."""
        return self._share((self.support + self.predicted) / 2)

    @property
    def iou(self) -> float | None:
        """Intersection of its examples and its predictions over their union."""
        return self._share(self.support + self.predicted - self.correct)

    def _share(self, whole: float) -> float | None:
        return self.correct / whole if whole else None


@dataclass(frozen=True)
class ClassTable:
    """The classes of one model, the one after ``round``; ``confusion`` (K, K) is None where there are too many."""

    round: int
    rows: tuple[ClassRow, ...]
    confusion: npt.NDArray[np.int64] | None


def class_table(server_round: int, names: Sequence[str], report: "ClassReport") -> ClassTable:
    """Return what an evaluation counted, with the names of the classes."""
    counts = (each.tolist() for each in (report.counts.actual, report.counts.predicted, report.counts.hits))
    rows = tuple(ClassRow(*row) for row in zip(names, *counts, strict=True))
    return ClassTable(server_round, rows, None if report.confusion is None else report.confusion.numpy())


def write_classes(folder: Path, model: str, table: ClassTable) -> None:
    """Write the files of the ``last`` or the ``best`` model.

    Raises
    ------
    WriteError
        If one cannot be written; then it is as it was.
    """
    if len(table.rows) > MOST_LISTED:
        return
    rows = ([table.round, row.name, *_values(row)] for row in table.rows)
    replace_file(folder / PER_CLASS.format(model), _csv(("round", "class", *COUNTS, *SCORES), rows))
    if table.confusion is not None:
        names = [row.name for row in table.rows]
        lines = ([table.round, name, *counts] for name, counts in zip(names, table.confusion.tolist(), strict=True))
        replace_file(folder / CONFUSION.format(model), _csv(("round", "true class", *names), lines))


def _values(row: ClassRow) -> list[str]:
    scores = [getattr(row, name) for name in SCORES]
    return [str(getattr(row, name)) for name in COUNTS] + ["" if score is None else f"{score:.6f}" for score in scores]


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode(errors="replace")


def read_classes(folder: Path, model: str) -> ClassTable | None:
    """Return what the files of the ``last`` or the ``best`` model hold, None if there are none.

    Raises
    ------
    ValueError
        If one holds something else; the message names it.
    """
    path, matrix = folder / PER_CLASS.format(model), folder / CONFUSION.format(model)
    if not path.is_file():
        return None
    lines = _read(path, 2, 5)
    if not lines:
        raise ValueError(f"{path} has no class: delete it")
    rows = tuple(ClassRow(name, *counts) for _, name, counts in lines)
    found = _read(matrix, 2) if matrix.is_file() else []
    if found and [len(counts) for _, _, counts in found] != [len(rows)] * len(rows):
        raise ValueError(f"{matrix} is no table of {len(rows)} by {len(rows)} classes: delete or restore it")
    same_round = found and found[0][0] == lines[0][0]  # a crash between the two leaves one of the round before
    confusion = np.array([counts for _, _, counts in found], np.int64) if same_round else None
    return ClassTable(lines[0][0], rows, confusion)


def _read(path: Path, first: int, stop: int | None = None) -> list[tuple[int, str, tuple[int, ...]]]:
    """Return of each line the round, the class and the whole numbers from column ``first`` to ``stop`` or to the last.

    Raises
    ------
    ValueError
        If there is anything else.
    """
    try:
        _, *lines = csv.reader(io.StringIO(path.read_bytes().decode(errors="replace")), strict=True)
        return [(int(line[0]), line[1], tuple(int(text) for text in line[first:stop])) for line in lines]
    except (ValueError, IndexError, csv.Error) as error:
        raise ValueError(f"{path} does not hold what was counted of classes ({error}): delete or restore it") from error
