"""A run in plain sentences, and next to other runs."""

import json
from pathlib import Path

import pytest

from server_app.report import comparison_table, headline, read_run
from server_app.report.table import comparison_json
from server_app.report.text import single_line
from tests.run_directories import CLIENT_LINES, accuracies, validated, write_run

SITES_FIRST, SITES_SECOND = (
    [
        {
            "round": number,
            "seconds": 1.0,
            "validation_accuracy": accuracy,
            "validation_macro-f1": f1,
            "validation_loss": loss,
        }
        for number, (accuracy, f1, loss) in enumerate(rounds, 1)
    ]
    for rounds in ([(0.6, 0.5, 1.0), (0.5, 0.4, 1.5)], [(0.7, 0.65, 1.25)])
)


class TestHeadline:
    def test_completed(self, tmp_path: Path) -> None:
        metrics = accuracies(0.0981, 0.9204, 0.9138)
        metrics[1] |= {"quarantined": 1}
        metrics[2] |= {"quarantined": 2, "skipped": True}
        assert headline(read_run(write_run(tmp_path, metrics, CLIENT_LINES))) == (
            "Accuracy on clean test data rose from 9.8 % to 91.4 % in 2 rounds. "
            "2 clients, 60 % of all labels made wrong, up to 80 % at one client, 3 replies quarantined, "
            "1 round skipped."
        )

    def test_last_is_best(self, tmp_path: Path) -> None:
        text = headline(read_run(write_run(tmp_path, accuracies(0.5, 0.7), rounds=1)))
        assert text == "Accuracy on clean test data rose from 50.0 % to 70.0 % in 1 round."

    def test_another_round_is_best_on_validation_data(self, tmp_path: Path) -> None:
        lines = validated(accuracies(0.1, 0.9, 0.8, 0.7), 0.1, 0.2, 0.6, 0.5)
        text = headline(read_run(write_run(tmp_path / "a", lines, rounds=3, best_round=2)))
        assert text == (
            "Accuracy on clean test data rose from 10.0 % to 70.0 % in 3 rounds; 80.0 % after round 2, the best on "
            "validation data. The model became worse after round 2: it lost 10.0 percentage points until the end."
        )
        last = headline(read_run(write_run(tmp_path / "b", lines, rounds=3, best_round=3)))
        assert last == "Accuracy on clean test data rose from 10.0 % to 70.0 % in 3 rounds."

    def test_validation_data_where_there_is_no_test_data(self, tmp_path: Path) -> None:
        lines = [{"round": 0, "validation_accuracy": 0.1}, {"round": 1, "validation_accuracy": 0.6}]
        text = headline(read_run(write_run(tmp_path, lines, rounds=1, best_round=1)))
        assert text == "Accuracy on validation data rose from 10.0 % to 60.0 % in 1 round."

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ((0.5, 0.3), "fell from 50.0 % to 30.0 % in 1 round."),
            ((0.5, 0.50001), "stayed at 50.0 % in 1 round."),
            ((None, 0.5), "was 50.0 % after round 1."),
            ((0.5, None), "was 50.0 % before training."),
        ],
    )
    def test_other_outcomes(self, tmp_path: Path, values: tuple[float | None, ...], expected: str) -> None:
        text = headline(read_run(write_run(tmp_path, accuracies(*values), rounds=1)))
        assert text == f"Accuracy on clean test data {expected}"

    def test_loss_where_nothing_else_was_measured(self, tmp_path: Path) -> None:
        metrics = [{"round": 0, "loss": 2.3026}, {"round": 1, "loss": 0.5}, {"round": 2, "loss": 0.75}]
        text = headline(read_run(write_run(tmp_path, metrics)))
        assert text == "Loss on clean test data fell from 2.303 to 0.750 in 2 rounds."

    def test_ended_early(self, tmp_path: Path) -> None:
        reason = "stopped early: accuracy has not improved for 2 evaluations"
        text = headline(read_run(write_run(tmp_path, accuracies(0.1, 0.5), rounds=9, reason=reason)))
        assert text.endswith(f"in 1 round. The run ended after 1 of 9 rounds: {reason}.")

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            ("stopped", "The run was stopped after 1 of 9 rounds: Ctrl-C."),
            ("running", "The run has recorded 1 of 9 rounds and no end: it is still running, or it was interrupted."),
        ],
    )
    def test_unfinished(self, tmp_path: Path, status: str, expected: str) -> None:
        text = headline(read_run(write_run(tmp_path, accuracies(0.1, 0.5), rounds=9, status=status, reason="Ctrl-C")))
        assert text.endswith(expected)

    def test_failed_says_so_first(self, tmp_path: Path) -> None:
        path = write_run(tmp_path, accuracies(0.1, 0.5), status="failed", reason="FederationError: nobody replied.\nx")
        assert headline(read_run(path)).startswith(
            "The run failed after 1 of 2 rounds: FederationError: nobody replied. Accuracy on clean test data rose"
        )

    def test_failed_before_the_first_round(self, tmp_path: Path) -> None:
        reason = "ConfigError: 1 error in the configuration:\n  - unknown key"
        expected = "The run failed before the first round: ConfigError: 1 error in the configuration."
        assert headline(read_run(write_run(tmp_path, status="failed", reason=reason))) == expected

    def test_failed_without_a_reason(self, tmp_path: Path) -> None:
        text = headline(read_run(write_run(tmp_path, status="failed")))
        assert text == "The run failed before the first round and recorded no reason."

    def test_no_evaluation(self, tmp_path: Path) -> None:
        clients = [{"round": 0, "client": 0, "examples": 3, "noise_rate": None}]
        path = write_run(tmp_path, [{"round": 1, "quarantined": 0}, {"round": 2, "quarantined": 1}], clients)
        text = headline(read_run(path))
        assert text == "No evaluation on clean test data was recorded. 1 client, 1 reply quarantined."

    @pytest.mark.parametrize(
        ("rate", "words"), [(0.0, "no label made wrong"), (0.034, "3.4 % of all labels made wrong")]
    )
    def test_few_wrong_labels(self, tmp_path: Path, rate: float, words: str) -> None:
        clients = [{"round": 0, "client": 0, "examples": 3, "noise_rate": rate}]
        assert headline(read_run(write_run(tmp_path, clients=clients))).endswith(f" 1 client, {words}.")


class TestComparison:
    def test_values(self, tmp_path: Path) -> None:
        metrics = [
            {"round": 0, "accuracy": 0.1, "macro-f1": 0.05, "loss": 2.3, "seconds": 0.5},
            {"round": 1, "accuracy": 0.9, "macro-f1": 0.8, "loss": 0.5, "seconds": 40.0, "quarantined": 1},
            {"round": 2, "accuracy": 0.85, "macro-f1": 0.75, "loss": 0.6, "seconds": 2.0, "quarantined": 2},
            {"round": 3, "accuracy": 0.85, "macro-f1": 0.75, "loss": 0.6, "seconds": 3.0, "quarantined": 0},
        ]
        metrics = validated(metrics, 0.1, 0.5, 0.6, 0.6)
        first = write_run(tmp_path / "a", metrics, label="robust", best_round=2)
        second = write_run(tmp_path / "b", accuracies(0.1, 0.6), label="fedavg", status="failed")
        third = write_run(tmp_path / "c", status="failed", label="none")
        header, rule, *rows = comparison_table([first, second, third]).split("\n\n")[0].splitlines()
        assert header.split("  ")[0] == "run"
        assert set(rule) == {"-"}
        assert [" ".join(row.split()) for row in rows] == [
            "robust 3 85.0 % - 86.7 % 85.0 % (2) 75.0 % 0.600 3 3.0 s 45.5 s",
            "fedavg 1 (failed) 60.0 % -25.0 60.0 % - - - 0 - 0.0 s",
            "none 0 (failed) - - - - - - 0 - 0.0 s",
        ]

    def test_masks_have_a_column_for_dice(self, tmp_path: Path) -> None:
        masks = write_run(tmp_path / "a", [{"round": 1, "accuracy": 0.9, "macro-f1": 0.8, "dice": 0.7}])
        header, _, row, *_ = comparison_table([masks]).splitlines()
        assert header.split()[-7:] == ["macro-F1", "Dice", "loss", "quarantined", "per", "round", "time"]
        assert " ".join(row.split()).endswith("80.0 % 70.0 % - 0 - 0.0 s")

    def test_without_test_data_runs_are_compared_by_what_the_sites_measured(self, tmp_path: Path) -> None:
        first, second = ([{"round": 0, "seconds": 0.0}, *measured] for measured in (SITES_FIRST, SITES_SECOND))
        runs = [write_run(tmp_path / "a", first, best_round=1), write_run(tmp_path / "b", second, label="second")]
        text = comparison_table(runs)
        rows = [" ".join(row.split()) for row in text.splitlines()[2:4]]
        assert rows == [
            "winnow 2 50.0 % - 55.0 % 60.0 % (1) 40.0 % 1.500 0 1.0 s 2.0 s",
            "second 1 70.0 % +20.0 70.0 % - 65.0 % 1.250 0 1.0 s 1.0 s",
        ]
        assert "last evaluation on validation data, as nobody has test data" in " ".join(text.split())
        assert [one["validation_accuracy"] for one in json.loads(comparison_json(runs))] == [0.5, 0.7]
        tested = write_run(tmp_path / "c", accuracies(0.1, 0.6), label="tested")
        assert "last evaluation on clean test data" in " ".join(comparison_table([*runs, tested]).split())

    def test_columns_are_aligned(self, tmp_path: Path) -> None:
        first = write_run(tmp_path / "a", accuracies(0.1, 1.0), label="a label of some length")
        second = write_run(tmp_path / "b", accuracies(0.1, 0.05), label="b")
        lines = comparison_table([first, second]).split("\n\n")[0].splitlines()
        assert len({len(line) for line in lines}) == 1
        end = lines[0].index("accuracy") + len("accuracy")
        assert [line[:end].rsplit("  ", 1)[1] for line in lines[2:]] == ["100.0 %", "5.0 %"]

    def test_equal_labels_show_their_folder(self, tmp_path: Path) -> None:
        table = comparison_table([write_run(tmp_path / name) for name in ("one", "two")])
        assert "winnow (one)" in table
        assert "winnow (two)" in table

    def test_nothing_to_compare(self) -> None:
        with pytest.raises(ValueError, match="at least one run directory"):
            comparison_table([])


def test_single_line_disarms_control_characters() -> None:
    assert single_line("a\u202eb\x1b[31m\ud800") == "a\ufffdb\ufffd[31m\ufffd"
    assert single_line("x" * 301) == "x" * 299 + "…"
    assert single_line("x" * 300) == "x" * 300
