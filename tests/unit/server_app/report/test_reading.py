"""A run directory read back, whole or damaged, and what became of each client."""

import json
from pathlib import Path
from typing import Any

import pytest

from server_app.report import ReportError, headline, read_run
from server_app.report.summaries import equal_weight, noisier_half, summarize_clients
from server_app.storage.run_directory import METRICS
from tests.run_directories import CLIENT_LINES, accuracies, write_run


class TestReading:
    def test_values_null_and_missing(self, tmp_path: Path) -> None:
        metrics: list[dict[str, Any]] = [
            {"round": 0, "accuracy": 0.1, "loss": 2.0, "selected": 0},
            {"round": 1, "accuracy": None, "loss": float("nan"), "skipped": True, "iou": 0.5, "note": "text"},
            {"round": 2, "accuracy": 0.9, "loss": 0.5, "validation_loss": 0.4, "skipped": False, "selected": 2},
        ]
        record = read_run(write_run(tmp_path, metrics, best_round=2))
        assert record.series("accuracy") == [(0, 0.1), (2, 0.9)]
        assert record.series("iou") == [(1, 0.5)]
        assert record.series("note") == []
        assert [entry.skipped for entry in record.rounds] == [False, True, False]
        assert record.final("loss") == 0.5
        assert record.at_best("loss") == 0.5
        assert record.at_best("iou") is None
        assert record.total("selected") == 2.0
        assert (record.rounds_done, record.planned_rounds, record.best_round) == (2, 2, 2)
        assert record.config == {"seed": 1, "num-server-rounds": 2, "loss.name": "nce+rce"}

    def test_registration_is_sorted_and_apart_from_rounds(self, tmp_path: Path) -> None:
        record = read_run(write_run(tmp_path, clients=CLIENT_LINES))
        assert [(entry.client, entry.noise_rate, entry.class_counts) for entry in record.registration] == [
            (0, 0.0, (4, 6)),
            (1, 0.8, (30, 0)),
        ]
        assert [(entry.round, entry.client) for entry in record.client_rounds] == [(1, 0), (1, 1), (2, 0), (2, 1)]

    @pytest.mark.parametrize("torn", ['{"round": 2, "accu', '{"round": 2, "accuracy": "\xc3', "\0\0\0\0", '{"round":'])
    def test_torn_last_line_is_left_out(self, tmp_path: Path, torn: str) -> None:
        write_run(tmp_path, accuracies(0.1, 0.2))
        with (tmp_path / METRICS).open("ab") as file:
            file.write(torn.encode("latin-1"))
        assert read_run(tmp_path).series("accuracy") == [(0, 0.1), (1, 0.2)]

    def test_complete_last_line_without_newline_counts(self, tmp_path: Path) -> None:
        write_run(tmp_path, accuracies(0.1))
        with (tmp_path / METRICS).open("a") as file:
            file.write('{"round": 1, "accuracy": 0.2}')
        assert read_run(tmp_path).final("accuracy") == 0.2

    def test_later_line_of_a_round_counts(self, tmp_path: Path) -> None:
        record = read_run(write_run(tmp_path, [*accuracies(0.1, 0.2), {"round": 1, "accuracy": 0.3}]))
        assert record.series("accuracy") == [(0, 0.1), (1, 0.3)]

    @pytest.mark.parametrize(
        ("line", "problem"), [("{broken", "line 2: not JSON"), ("[1]", "whole number"), ('{"round": "x"}', "'round'")]
    )
    def test_broken_line_in_the_middle_is_named(self, tmp_path: Path, line: str, problem: str) -> None:
        write_run(tmp_path)
        (tmp_path / METRICS).write_text(f'{{"round": 0}}\n{line}\n{{"round": 2}}\n')
        with pytest.raises(ReportError, match=problem):
            read_run(tmp_path)

    @pytest.mark.parametrize("name", ["status.json", "versions.json", "config.toml"])
    def test_broken_file_is_named(self, tmp_path: Path, name: str) -> None:
        write_run(tmp_path)
        (tmp_path / name).write_text("[1, 2")
        with pytest.raises(ReportError, match=name):
            read_run(tmp_path)

    def test_json_that_is_no_object(self, tmp_path: Path) -> None:
        (tmp_path / "status.json").write_text("[1, 2]")
        with pytest.raises(ReportError, match="got list"):
            read_run(tmp_path)

    @pytest.mark.parametrize("name", ["status.json", "versions.json", "config.toml", "metrics.jsonl", "clients.jsonl"])
    @pytest.mark.parametrize("left", ["missing", "empty"])
    def test_missing_or_empty_file(self, tmp_path: Path, name: str, left: str) -> None:
        path = write_run(tmp_path / "run", accuracies(0.1, 0.2), CLIENT_LINES) / name
        path.unlink()
        if left == "empty" and not name.endswith(".json"):
            path.touch()
        record = read_run(tmp_path / "run")
        assert record.label == ("run" if name == "status.json" else "winnow")
        assert bool(record.rounds) == (name != "metrics.jsonl")
        assert bool(record.registration) == (name != "clients.jsonl")
        assert bool(record.config) == (name != "config.toml")
        assert headline(record)

    def test_other_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ReportError, match=r"not a run directory: .*status\.json"):
            read_run(tmp_path)

    def test_numbers_beyond_float(self, tmp_path: Path) -> None:
        write_run(tmp_path)
        (tmp_path / METRICS).write_text(json.dumps({"round": 0, "loss": 10**400, "accuracy": True}) + "\n")
        assert read_run(tmp_path).rounds[0].values == {}


class TestClients:
    def test_quarantined_round_counts_as_no_weight(self, tmp_path: Path) -> None:
        clients = summarize_clients(read_run(write_run(tmp_path, clients=CLIENT_LINES)))
        assert [(c.client, c.mean_weight, c.last_weight, c.times_asked) for c in clients] == [
            (0, 0.875, 1.0, 2),
            (1, 0.125, 0.0, 2),
        ]
        assert clients[0].quarantines == ()
        assert [(item.reason, item.rounds) for item in clients[1].quarantines] == [("NaN", (2,))]

    def test_distance_is_the_median_of_the_rounds_that_have_one(self, tmp_path: Path) -> None:
        far = [{"round": 3 + i, "client": 0, "distance": value} for i, value in enumerate((8.0, None, 1.0, 2.5))]
        clients = summarize_clients(read_run(write_run(tmp_path, clients=[*CLIENT_LINES, *far])))
        assert [client.distance for client in clients] == [2.5, None]

    def test_without_weights(self, tmp_path: Path) -> None:
        lines = [{**line, "weight": None} for line in CLIENT_LINES]
        record = read_run(write_run(tmp_path, clients=lines))
        assert [client.mean_weight for client in summarize_clients(record)] == [None, None]
        assert equal_weight(record) is None

    def test_equal_weight_follows_the_clients_asked(self, tmp_path: Path) -> None:
        lines = [*CLIENT_LINES, {"round": 3, "client": 0, "weight": 1.0}, {"round": 4, "client": 1, "quarantine": "x"}]
        assert equal_weight(read_run(write_run(tmp_path, clients=lines))) == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)

    def test_client_that_did_not_register(self, tmp_path: Path) -> None:
        record = read_run(write_run(tmp_path, clients=[{"round": 1, "client": 7, "examples": 5, "weight": 1.0}]))
        (client,) = summarize_clients(record)
        assert (client.client, client.examples, client.noise_rate, client.mean_weight) == (7, 5, None, 1.0)

    def test_most_frequent_reason_first(self, tmp_path: Path) -> None:
        reasons = {1: "late", 2: "NaN", 3: "NaN"}
        lines = [{"round": number, "client": 0, "quarantine": reason} for number, reason in reasons.items()]
        (client,) = summarize_clients(read_run(write_run(tmp_path, clients=lines)))
        assert [(item.reason, item.rounds) for item in client.quarantines] == [("NaN", (2, 3)), ("late", (1,))]

    def test_noisier_half(self, tmp_path: Path) -> None:
        registration = [{"round": 0, "client": i, "examples": 10 + 10 * i, "noise_rate": 0.2 * i} for i in range(4)]
        weights = [{"round": 1, "client": i, "weight": weight} for i, weight in enumerate([0.4, 0.3, 0.2, 0.1])]
        half = noisier_half(summarize_clients(read_run(write_run(tmp_path, clients=[*registration, *weights]))))
        assert half is not None
        assert (half.clients, half.example_share) == (2, 0.7)
        assert half.weight_share == pytest.approx(0.3)

    def test_no_noisier_half_with_equal_rates(self, tmp_path: Path) -> None:
        registration = [{"round": 0, "client": i, "examples": 10, "noise_rate": 0.4} for i in range(4)]
        weights = [{"round": 1, "client": i, "weight": 0.25} for i in range(4)]
        assert noisier_half(summarize_clients(read_run(write_run(tmp_path, clients=[*registration, *weights])))) is None
