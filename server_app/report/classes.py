"""Classes in a report: the scores of each one, and which are taken for which (confusion matrix) as a heat map."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from server_app.report.drawing import Chart, heat_map, name_ticks, svg
from server_app.report.reading import RunRecord
from server_app.report.text import View, number, percent, single_line
from server_app.storage.class_files import CONFUSION, LAST, ClassRow, ClassTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SHOWN = 100
"""Classes in the table of a page, those with the lowest recall; the file has all."""
LONGEST_NAME = 16
MOST_CONFUSIONS = 5
INCHES = (6.4, 5.8)
COLOUR = "#5fae8f"  # numbers can be read on it
ROOM = 1.6  # inches that the names of the classes take


def class_section(record: RunRecord) -> View:
    """Return the rows of the table of classes, the worst first, and the sentences above it."""
    table, best = record.last_classes, record.best_classes
    rows = _worst_first(table.rows) if table else []
    before = {row.name: row.recall for row in best.rows} if best else {}
    pixels = bool(record.series("mean-iou") or record.series("dice"))
    notes = [_what(table, len(rows), pixels), _confusions(table)] if table else []
    return {
        "class_notes": [note for note in notes if note],
        "class_rows": [_row(row, before.get(row.name)) for row in rows[:MOST_SHOWN]],
        "class_best": f"Recall, round {best.round}" if best and table and best.round != table.round else "",
        "class_pixels": pixels,
    }


def _worst_first(rows: tuple[ClassRow, ...]) -> list[ClassRow]:
    return sorted(rows, key=lambda row: 2.0 if row.recall is None else row.recall)


def _what(table: ClassTable, count: int, pixels: bool) -> str:
    shown = f" These are the {MOST_SHOWN} of {count} with the lowest recall." if count > MOST_SHOWN else ""
    return (
        f"The model after round {table.round} on clean test data, the class of which it finds the least first. Recall, "
        f"the accuracy of a class: the share of its {'pixels' if pixels else 'examples'} that are predicted rightly. "
        f"Precision: the share of its predictions that are right. F1: the harmonic mean of both.{shown}"
    )


def _confusions(table: ClassTable) -> str:
    """Say which classes are taken for which other ones most often."""
    if table.confusion is None:
        return ""
    wrong = table.confusion - np.diag(table.confusion.diagonal())
    places = [divmod(int(place), len(wrong)) for place in np.argsort(-wrong, axis=None, kind="stable")]
    named = [
        f"{_short(table.rows[true].name)} for {_short(table.rows[taken].name)} ({number(int(wrong[true, taken]))} of "
        f"{number(table.rows[true].support)})"
        for true, taken in places[:MOST_CONFUSIONS]
        if wrong[true, taken]
    ]
    return f"Taken most often: {', '.join(named)}." if named else "No class is taken for another one."


def _row(row: ClassRow, best: float | None) -> View:
    return {
        "name": single_line(row.name, 60),
        "support": number(row.support),
        "predicted": number(row.predicted),
        "correct": number(row.correct),
        "recall": percent(row.recall),
        "recall_bar": row.recall,
        "precision": percent(row.precision),
        "f1": percent(row.f1),
        "iou": percent(row.iou),
        "best": percent(best),
    }


def confusion_chart(record: RunRecord) -> Chart | None:
    """Draw the confusion matrix of the last model, each row in percent of its true class."""
    table = record.last_classes
    if table is None or table.confusion is None or len(table.rows) < 2:
        return None
    shares = _shares(table.confusion)
    names = [_short(row.name) for row in table.rows]

    def draw(axes: "Axes") -> None:
        texts = [f"{100 * share:.0f}" if share >= 0.005 else "" for share in shares.flat]
        heat_map(axes, np.sqrt(shares), COLOUR, texts, (INCHES[0] - ROOM, INCHES[1] - ROOM))
        name_ticks(axes.yaxis, names)
        name_ticks(axes.xaxis, names)
        axes.tick_params(axis="x", labelrotation=90)
        axes.tick_params(labelsize=9 if len(names) <= 20 else 7)
        axes.set(xlabel="predicted class", ylabel="true class")

    note = (
        f"After round {table.round}, in percent of each true class: a good model is dark on the diagonal and white "
        f"elsewhere (shade: the square root, so that few can be seen). The counts are in {CONFUSION.format(LAST)}."
    )
    return Chart("Which class is taken for which?", svg("confusion", draw, INCHES), note)


def _shares(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return each row as shares of its sum, zeros for a class that does not occur."""
    return np.asarray(confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1))


def _short(name: str) -> str:
    return single_line(name, LONGEST_NAME)
