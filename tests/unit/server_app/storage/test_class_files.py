"""Confusion matrix and scores of each class, written and read back."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from server_app.report import ReportError, read_run
from server_app.storage.class_files import BEST, LAST, ClassRow, ClassTable, class_table, read_classes, write_classes
from tasks.metrics import ClassReport, server_metrics
from tests.run_directories import accuracies, write_run

NAMES = ("cat, big", 'a "dog"', "naïve\nbird")  # a bird that never occurs


def report() -> ClassReport:
    """Of three cats two are found, one is taken for a bird; the dog is found."""
    labels, predictions = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 2, 1])
    return server_metrics(torch.eye(3)[predictions], labels)[1]


def test_what_is_written_is_read_back_and_scores_follow_from_the_counts(tmp_path: Path) -> None:
    table = class_table(7, NAMES, report())
    write_classes(tmp_path, BEST, table)
    found = read_classes(tmp_path, BEST)
    assert found is not None
    assert (found.round, found.rows) == (7, table.rows)
    np.testing.assert_array_equal(found.confusion, [[2, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert read_classes(tmp_path, LAST) is None
    with (tmp_path / "per-class-best.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(NAMES)
    scores = [[row[name] for name in ("recall", "precision", "f1", "iou")] for row in rows]
    assert scores[0] == ["0.666667", "1.000000", "0.800000", "0.666667"]
    assert scores[2] == ["", "0.000000", "0.000000", "0.000000"]  # no recall without an example


def test_a_class_that_neither_occurs_nor_is_predicted_has_no_scores() -> None:
    row = ClassRow("x", 0, 0, 0)
    assert (row.recall, row.precision, row.f1, row.iou) == (None, None, None, None)


def test_many_classes_have_no_matrix_and_very_many_no_file(tmp_path: Path) -> None:
    counts = report().counts
    write_classes(tmp_path, LAST, class_table(1, NAMES, ClassReport(counts, None)))
    found = read_classes(tmp_path, LAST)
    assert found is not None
    assert found.confusion is None
    rows = tuple(ClassRow(str(number), 1, 1, 1) for number in range(1001))
    write_classes(tmp_path / "no folder is needed", LAST, ClassTable(1, rows, None))


def test_a_matrix_of_another_round_is_left_out(tmp_path: Path) -> None:
    write_classes(tmp_path, LAST, class_table(7, NAMES, report()))
    older = (tmp_path / "confusion-last.csv").read_text()
    write_classes(tmp_path, LAST, class_table(8, NAMES, report()))
    (tmp_path / "confusion-last.csv").write_text(older)  # as if it had ended between the two
    found = read_classes(tmp_path, LAST)
    assert found is not None
    assert (found.round, found.confusion) == (8, None)


@pytest.mark.parametrize("name", ["per-class-last.csv", "confusion-last.csv"])
@pytest.mark.parametrize("text", ["", "round,class\nx,y,1,2,3\n", "round,class\n1\n", 'a\n1,"x'])
def test_a_broken_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    write_run(tmp_path, accuracies(0.1))
    write_classes(tmp_path, LAST, class_table(7, NAMES, report()))
    (tmp_path / name).write_text(text)
    with pytest.raises(ReportError, match=name):
        read_run(tmp_path)
