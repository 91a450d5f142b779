"""Predictions for files without labels: images, texts, tables; as a table with a probability for each class.

A file, or a row of a table, that cannot be read is told apart from the others, which are predicted all the same.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from server_app.export.trained import ExportError, TrainedModel
from tasks.base import DataError
from tasks.inference import IMAGES, TABLE, TEXTS, Predictive, raw_batch
from tasks.own_data.files import IMAGE_ENDINGS, UnusableError, files_below
from tasks.plugins import explain

ENDINGS = {IMAGES: IMAGE_ENDINGS, TEXTS: (".txt", ".csv"), TABLE: (".csv",)}
"""By what a task reads, how the names of its files end; other files in a folder are left out."""
COLUMNS = ("file", "line", "class", "probability")


@dataclass(frozen=True)
class Prediction:
    """The probabilities of one example; ``line`` is where it begins in a table, 0 = it is the whole file."""

    file: str
    line: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Failure:
    """Why a file, or one example in it, is not predicted."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}, line {self.line}" if self.line else self.file
        return "".join(sign if sign.isprintable() else "?" for sign in f"{place}: {self.reason}")


def check_predictable(model: TrainedModel) -> None:
    """Raise ``ExportError`` unless files can be read for a model, and have one class each."""
    if model.task.labels_pixels:
        raise ExportError("the model answers for each pixel, which is no line of a table: export it and use it outside")
    if not isinstance(model.task.raw, Predictive):
        raise ExportError(
            f"the task {model.settings.task.name!r} does not say how files are read: give it preprocessing() and "
            "unlabelled(path), as docs/models.md shows"
        )


def predict_files(model: TrainedModel, paths: Iterable[Path], batch_size: int) -> Iterator[Prediction | Failure]:
    """Yield a prediction or a failure for every example, predictions in the order of the files.

    Raises
    ------
    ExportError
        If the model's task cannot read files; see :func:`check_predictable`.
    """
    check_predictable(model)
    task = model.task
    assert isinstance(task, Predictive)
    kind, waiting = task.preprocessing()["kind"], list[tuple[str, int, npt.NDArray[np.generic]]]()
    for found in _files(paths, kind):
        if isinstance(found, Failure):
            yield found
            continue
        for example in _examples(task, found):
            if isinstance(example, Failure):
                yield example
                continue
            waiting.append(example)
            if len(waiting) == batch_size:
                yield from _answers(model, waiting)
                waiting = []
    if waiting:
        yield from _answers(model, waiting)


def _examples(task: Predictive, path: Path) -> Iterator[tuple[str, int, npt.NDArray[np.generic]] | Failure]:
    try:
        found = iter(task.unlabelled(path))
    except (DataError, UnusableError, OSError) as error:
        yield Failure(str(path), 0, _reason(error))
        return
    for example in found:
        try:
            yield str(path), example.line, example.read()
        except (DataError, UnusableError, OSError) as error:
            yield Failure(str(path), example.line, _reason(error))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UnusableError) else explain(error)


def _answers(
    model: TrainedModel, examples: Sequence[tuple[str, int, npt.NDArray[np.generic]]]
) -> Iterator[Prediction | Failure]:
    answers = model.predict(raw_batch([raw for _, _, raw in examples])).double().numpy()
    for (file, line, _), row in zip(examples, answers, strict=True):
        if np.isfinite(row).all():
            yield Prediction(file, line, tuple(row.tolist()))
        else:
            yield Failure(file, line, "the model's answer is no number: did its training diverge?")


def _files(paths: Iterable[Path], kind: str) -> Iterator[Path | Failure]:
    """Yield the named files, and those in the named folders that the kind of task reads."""
    for path in paths:
        if not os.path.isdir(path):
            yield path if os.path.exists(path) else Failure(str(path), 0, "there is no such file")
            continue
        endings, count = ENDINGS.get(kind, ("",)), 0
        try:
            for found in files_below(path):
                if found.name.lower().endswith(endings):
                    count += 1
                    yield found
        except DataError as error:
            yield Failure(str(path), 0, str(error))
            continue
        if not count:
            yield Failure(str(path), 0, f"no file in this folder ends in {', '.join(endings)}")


def header(classes: Sequence[str]) -> list[str]:
    """Return the names of the columns: place, class, its probability, and the probability of each class."""
    return [*COLUMNS, *(f"probability_{name}" for name in classes)]


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def as_row(found: Prediction, classes: Sequence[str]) -> list[str]:
    """Return a prediction as cells; nine digits give each float32 back."""
    likeliest = int(np.argmax(found.probabilities))
    shown = [f"{value:.9g}" for value in found.probabilities]
    return [found.file, str(found.line or ""), classes[likeliest], shown[likeliest], *shown]
