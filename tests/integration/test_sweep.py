"""A sweep's runs in their process: the numbers of any other engine, nothing written that nobody asked for."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server_app.engine.in_process import generators_kept
from server_app.sweep.database import COMPLETED, FAILED
from server_app.sweep.player import LOG, Began, Job, read_series
from server_app.sweep.player import play as play_job
from tasks.files import WriteError
from tasks.protocol import Mode
from tests.integration.conftest import QUICK, Play


@pytest.fixture(autouse=True)
def _simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be one of simulated clients for a test only."""
    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)


def job(folder: Path, **changes: Any) -> Job:
    own = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    return Job("k", {**QUICK, "federation.round-timeout": 60.0, "audit.enabled": False, **own}, folder)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


@pytest.mark.parametrize(
    "changes",
    [
        {"method__name": "masked-optim", "strategy__name": "noise-partition", "strategy__args": "warmup_rounds = 1"},
        {"privacy__mode": "server-fixed", "strategy__aggregator": "mean", "strategy__weighting": "uniform"},
        {"method__name": "tests.integration.counting:Counting", "federation__fraction_evaluate": 1.0},
    ],
    ids=["roles", "privacy", "stateful"],
)
def test_a_run_has_the_numbers_of_any_other_engine(play: Play, tmp_path: Path, changes: dict[str, Any]) -> None:
    other = play(audit__enabled=False, **changes)
    begun: list[Began] = []
    folder = tmp_path / "own"
    outcome = play_job(job(folder, **changes), begun.append)
    assert (outcome.state, outcome.reason) == (COMPLETED, "")
    for name in ("metrics.jsonl", "clients.jsonl"):
        assert lines(folder, name) == lines(other.path, name)
    assert outcome.series["accuracy"] == tuple((line["round"], line["accuracy"]) for line in other.metrics)
    assert outcome.best_round == other.status["best_round"]
    assert [each.key for each in begun] == ["k"]
    assert begun[0].memory > 2**26
    assert outcome.cpu_seconds > 0


def test_nothing_is_written_that_nobody_asked_for(tmp_path: Path) -> None:
    assert play_job(job(tmp_path / "quiet")).state == COMPLETED
    names = {path.name for path in (tmp_path / "quiet").iterdir()}
    assert not names & {"report.html", "checkpoints", "clients", ".reserve"}
    assert {"config.toml", "status.json", "metrics.jsonl", LOG} <= names
    assert "round 3/3" in (tmp_path / "quiet" / LOG).read_text()


def test_a_run_with_checkpoints_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    whole = job(tmp_path / "whole", method__name="tests.integration.counting:Counting")
    parts = replace(whole, folder=tmp_path / "parts", checkpoints=True)
    assert play_job(replace(parts, stop_after=2)).series["accuracy"][-1][0] == 2
    outcome = play_job(parts)
    assert lines(parts.folder, "metrics.jsonl")[-1]["round"] == 3
    assert {**outcome.series, "seconds": ()} == {**play_job(whole).series, "seconds": ()}
    assert json.loads((parts.folder / "status.json").read_text())["resumed_after"] == 2


def test_a_run_that_is_played_again_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"round": 0, "accuracy": 0.0}\n')
    assert len(play_job(job(tmp_path / "run")).series["accuracy"]) == 4


def test_a_run_that_raises_has_failed_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = play_job(job(tmp_path / "run", federation__round_timeout=1e-9))
    assert outcome.state == FAILED
    assert "0 of 4 clients are ready" in outcome.reason
    assert not outcome.stops_all
    assert "Traceback" in (tmp_path / "run" / LOG).read_text()

    def full(*_: object, **__: object) -> None:
        raise WriteError(28, "No space left on device", "x")

    monkeypatch.setattr("server_app.sweep.player.run_training", full)
    outcome = play_job(job(tmp_path / "full"))
    assert (outcome.state, outcome.stops_all) == (FAILED, True)
    assert "No space left on device" in outcome.reason


def test_what_clients_draw_is_taken_back() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), torch.rand(1).item()

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = drawn()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with generators_kept():
        drawn()
    assert drawn() == expected


def test_series_hold_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"round": 0, "accuracy": 0.1, "selected": 4, "skipped": true}\n'
        '{"round": 2, "accuracy": 1, "loss": null, "replies": 3}\n{"round": 3, "accur'
    )
    assert read_series(file) == {"accuracy": ((0, 0.1), (2, 1.0))}
    assert read_series(tmp_path / "none") == {}
