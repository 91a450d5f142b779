"""Last, mean of the last ten, and value at the best round on validation data, against numbers worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from server_app.report import read_run, results_table, write_report
from server_app.report.results import result
from tests.run_directories import accuracies, validated, write_run


def test_the_mean_is_that_of_the_last_ten_rounds_and_round_0_is_none(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "a", accuracies(9.0, 8.0, 8.0, *[0.1 * n for n in range(1, 11)]), rounds=12))
    found = result(record, "accuracy")
    assert found is not None
    assert found.mean == pytest.approx(0.55)
    assert found.rounds == tuple(range(3, 13))
    assert (found.last, found.at_best) == (1.0, None)  # 9.0 is the highest, but test data chooses nothing
    few = result(read_run(write_run(tmp_path / "b", accuracies(9.0, 0.25, 0.75))), "accuracy")
    assert few is not None
    assert (few.mean, few.rounds) == (0.5, (1, 2))
    none = result(read_run(write_run(tmp_path / "c", accuracies(9.0))), "accuracy")
    assert none is not None
    assert (none.last, none.mean) == (9.0, None)


def test_a_round_that_was_not_evaluated_does_not_count_and_one_that_diverged_does(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"round": 1, "accuracy": 0.5, "loss": 1.0, "clients_loss": 3.0, "selected": 4, "train_loss": 2.0},
        {"round": 2, "clients_loss": 5.0, "selected": 4, "train_loss": 2.0},
        {"round": 3, "accuracy": 0.7, "loss": None, "calibration-error": 0.25, "clients_loss": 7.0, "selected": 4},
    ]
    record = read_run(write_run(tmp_path, lines, rounds=3))
    accuracy, loss, clients = (result(record, name) for name in ("accuracy", "loss", "clients_loss"))
    assert accuracy is not None
    assert loss is not None
    assert clients is not None
    assert (accuracy.mean, accuracy.rounds) == (pytest.approx(0.6), (1, 3))
    assert loss.mean is None
    assert clients.mean == 5.0
    assert result(record, "selected") is None
    assert result(record, "train_loss") is None
    table = [" ".join(line.split()) for line in results_table(record).splitlines()]
    assert table[0] == "last mean of the last ten"
    assert table[2] == "Accuracy 70.0 % 60.0 %"
    assert "Calibration error 25.0 % -" in table


def test_test_data_is_shown_of_the_round_that_is_best_on_validation_data(tmp_path: Path) -> None:
    lines = validated(accuracies(0.1, 0.9, 0.6, 0.5), 0.1, 0.2, 0.8, 0.7)
    for line in lines:
        line |= {"loss": 4.0 - line["round"], "validation_loss": 1.0, "validation_macro-f1": 0.5}
    record = read_run(write_run(tmp_path, lines, rounds=3, best_round=2))
    accuracy, loss = result(record, "accuracy"), result(record, "loss")
    assert accuracy is not None
    assert loss is not None
    assert (accuracy.last, accuracy.at_best, loss.at_best) == (0.5, 0.6, 2.0)
    table = [" ".join(line.split()) for line in results_table(record).splitlines()]
    assert table[0] == "last best on validation (round 2) mean of rounds 1 to 3"
    assert table[2] == "Accuracy 50.0 % 60.0 % 66.7 %"
    assert [line.rpartition(" 1.000")[0] or line for line in table[4:]] == [
        "Validation accuracy 70.0 % 80.0 % 56.7 %",
        "Validation loss 1.000 1.000",
    ]  # of others the page tells
    page = write_report(tmp_path).read_text()
    assert "Validation macro-F1" in page
    assert "Round 2 is the best by validation accuracy" in page


def test_a_run_from_before_validation_data_has_no_best_round(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path, accuracies(0.1, 0.9, 0.6), best_round=1))
    assert record.best_round is None
    assert "No round is called the best" in write_report(tmp_path).read_text()


def test_results_are_kept_beside_the_report_and_nothing_measured_is_no_table(tmp_path: Path) -> None:
    write_report(write_run(tmp_path / "a", validated(accuracies(0.0, 0.5, 0.75), 0.0, 0.4, 0.3), best_round=1))
    kept = json.loads((tmp_path / "a" / "results.json").read_text())
    accuracy = {
        "last": 0.75,
        "at_best": 0.5,
        "mean_of_last": 0.625,
        "mean_evaluations": 2,
        "mean_from_round": 1,
    }
    measures = kept.pop("measures")
    assert kept == {"best_model_round": 1}
    assert measures["accuracy"] == accuracy
    assert measures["validation_accuracy"]["at_best"] == 0.4
    assert results_table(read_run(write_run(tmp_path / "b", [{"round": 1, "selected": 3}]))) == ""
