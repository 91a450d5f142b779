"""Trackers: what they are told of a run, that a server which is away does not end it, and what is written."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from server_app.callbacks import TrackedRun, Tracker, chosen_callbacks
from server_app.callbacks.tracking import artefacts
from server_app.state import RunState
from server_app.storage.run_directory import RunDirectory
from server_app.sweep.database import FILE
from tasks.config import parse

SETTINGS = {"run.name": "pilot", "run.note": "first try", "train.epochs": 7}
MEASURES = {"round": 1, "accuracy": 0.5, "loss": float("nan"), "remarks": ["none"]}


def state_in(folder: Path, resumed: bool = False, server_round: int = 0) -> RunState:
    folder.mkdir(parents=True, exist_ok=True)
    state = RunState.__new__(RunState)
    state.settings, state.directory, state.resumed = parse(SETTINGS), RunDirectory(folder), resumed
    state.server_round = server_round
    if not resumed:
        state.directory.update_status(started="2026-01-31T10:15:00+00:00", tags=["ct"], rounds_done=0)
    (folder / "report.html").write_text("report")
    return state


class Recorder(Tracker):
    """Keeps what it is told; ``away`` fails as a server does."""

    def __init__(self) -> None:
        super().__init__()
        self.away, self.told = False, list[Any]()

    def open(self, run: TrackedRun) -> None:
        self.told.append(run)

    def log_measures(self, server_round: int, measures: Mapping[str, float]) -> None:
        if self.away:
            raise ConnectionError("no route to host")
        self.told.append((server_round, dict(measures)))

    def close(self, status: str, files: Sequence[Path]) -> None:
        self.told.append((status, [path.name for path in files]))


def play(tracker: Any, folder: Path, status: str = "completed") -> None:
    """Two rounds and the end of a run."""
    state = state_in(folder)
    tracker.on_run_start(state)
    for state.server_round in (0, 1):
        tracker.on_round_end(state, {**MEASURES, "round": state.server_round})
    tracker.on_run_end(state)
    state.directory.finish(status, "")
    tracker.on_run_closed(state.directory)


def test_what_a_server_missed_while_it_was_away_is_sent_with_the_next_round(tmp_path: Path) -> None:
    tracker, state = Recorder(), state_in(tmp_path / "run")
    tracker.on_run_start(state)
    tracker.away = True
    assert tracker.on_round_end(state, MEASURES) == ""
    tracker.away, state.server_round = False, 1
    tracker.on_round_end(state, MEASURES)
    state.directory.finish("failed", "")
    tracker.on_run_closed(state.directory)
    assert tracker.told[1:] == [(0, {"accuracy": 0.5}), (1, {"accuracy": 0.5}), ("failed", ["report.html"])]


def test_a_run_is_told_with_its_settings_and_the_sweep_that_it_belongs_to(tmp_path: Path) -> None:
    (tmp_path / "sweep-a").mkdir()
    (tmp_path / "sweep-a" / FILE).write_bytes(b"")
    alone, swept, again = Recorder(), Recorder(), Recorder()
    play(alone, tmp_path / "run")
    play(swept, tmp_path / "sweep-a" / "runs" / "1")
    again.on_run_start(state_in(tmp_path / "run", resumed=True))
    first, other = alone.told[0], swept.told[0]
    assert (first.name, first.group, other.group) == ("run", "pilot", "sweep-a")
    assert first.parameters["train.epochs"] == 7
    assert (first.tags, first.note) == (("ct",), "first try")
    assert first.key == again.told[0].key != other.key


def test_a_run_that_never_began_is_not_closed(tmp_path: Path) -> None:
    tracker = Recorder()
    tracker.on_run_closed(state_in(tmp_path / "run").directory)
    assert tracker.told == []


def test_a_model_that_cannot_be_handed_over_costs_nothing_else(tmp_path: Path) -> None:
    state = state_in(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir()
    assert [path.name for path in artefacts(state.directory, "completed")] == ["report.html"]


def test_mlflow_keeps_settings_measures_and_files_in_a_local_store(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (tracker,) = chosen_callbacks(f'mlflow = {{ uri = "{tmp_path}/store", experiment = "trials" }}')
    play(tracker, tmp_path / "run")
    from mlflow import MlflowClient

    client = MlflowClient((tmp_path / "store").as_uri())
    experiment = client.get_experiment_by_name("trials")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "7"
    assert run.data.tags["group"] == "pilot"
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert [(one.step, one.value) for one in history] == [(0, 0.5), (1, 0.5)]
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["report.html"]
    again = state_in(tmp_path / "run", resumed=True, server_round=1)
    tracker.on_run_start(again)
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_wandb_writes_offline_into_the_run_directory(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (tracker,) = chosen_callbacks("wandb = {}")
    play(tracker, tmp_path / "run")
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    wanted = (b"accuracy", b"train.epochs", b"pilot", b"report.html")
    for _ in range(600):  # its own process writes the file, and goes on after the end of the run
        missing = [text for text in wanted if text not in file.read_bytes()]
        if not missing:
            break
        time.sleep(0.1)
    assert missing == []


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.callbacks.trackers.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf'the package {name} is not installed; pip install -e "\.\[{name}\]"'):
        chosen_callbacks(f"{name} = {{}}")
