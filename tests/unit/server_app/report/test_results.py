"""Last, best and mean of the last ten rounds, against numbers worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from server_app.report import read_run, results_table, write_report
from server_app.report.results import result
from tests.run_directories import accuracies, write_run


def test_the_mean_is_that_of_the_last_ten_rounds_and_round_0_is_none(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "a", accuracies(9.0, 8.0, 8.0, *[0.1 * n for n in range(1, 11)]), rounds=12))
    found = result(record, "accuracy")
    assert found is not None
    assert found.mean == pytest.approx(0.55)
    assert found.rounds == tuple(range(3, 13))
    assert (found.last, found.best) == (1.0, (0, 9.0))
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
    assert (loss.mean, loss.best) == (None, (1, 1.0))
    assert (clients.mean, clients.best) == (5.0, (1, 3.0))
    assert result(record, "selected") is None
    assert result(record, "train_loss") is None
    table = [" ".join(line.split()) for line in results_table(record).splitlines()]
    assert table[0] == "last best (round) mean of the last ten"
    assert table[2] == "Accuracy 70.0 % 70.0 % (3) 60.0 %"
    assert "Calibration error 25.0 % 25.0 % (3) -" in table


def test_less_is_better_of_losses_and_of_errors(tmp_path: Path) -> None:
    lines = [{"round": n, "calibration-error": 0.1 * n, "backdoor_success": 0.1 * n, "dice": 0.1 * n} for n in (1, 2)]
    record = read_run(write_run(tmp_path, lines))
    assert record.best("calibration-error") == (1, 0.1)
    assert record.best("backdoor_success") == (1, 0.1)
    assert record.best("dice") == (2, 0.2)


def test_results_are_kept_beside_the_report_and_nothing_measured_is_no_table(tmp_path: Path) -> None:
    write_report(write_run(tmp_path / "a", accuracies(0.0, 0.5, 0.75), best_round=2))
    kept = json.loads((tmp_path / "a" / "results.json").read_text())
    accuracy = {
        "last": 0.75,
        "best": 0.75,
        "best_round": 2,
        "mean_of_last": 0.625,
        "mean_evaluations": 2,
        "mean_from_round": 1,
    }
    assert kept == {"best_model_round": 2, "measures": {"accuracy": accuracy}}
    assert results_table(read_run(write_run(tmp_path / "b", [{"round": 1, "selected": 3}]))) == ""
