"""Lists of runs: what is found below a folder, in which state, and that nothing broken hides the rest."""

import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from server_app.report.listing import list_runs, listed
from server_app.report.reading import read_run
from server_app.report.text_tables import blocks, markdown, narrowed
from server_app.storage.run_directory import METRICS, STATUS, RunDirectory
from tests.run_directories import accuracies, write_run
from tests.sweep_cases import design_of, failed, pending, synthetic_runs, write_sweep

ROWS = [("run", "state", "a long heading"), ("one", "completed", "3"), ("another", "failed", "text " * 8)]


def test_runs_and_sweeps_are_found_newest_first_and_those_of_a_sweep_only_in_it(tmp_path: Path):
    write_run(tmp_path / "old", started="2026-01-01T10:00:00+00:00")
    write_run(tmp_path / "deep/er/new", started="2026-03-01T10:00:00+02:00")
    write_run(tmp_path / ".hidden/run", started="2026-04-01T10:00:00+00:00")
    write_run(tmp_path / "old/checkpoints/kept", started="2026-04-01T10:00:00+00:00")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/config.toml").write_text("[other]\nprogram = 1\n")
    design = design_of(("a",), ("clean",), 2)
    runs = [replace(run, started="2026-02-01T10:00:00+00:00") for run in synthetic_runs(design, {"a": 0.5})]
    sweep = write_sweep(tmp_path / "sweep-digits", design, runs)
    write_run(sweep / "runs/one", started="2026-05-01T10:00:00+00:00")
    assert [entry.path.name for entry in list_runs(tmp_path)] == ["new", "sweep-digits", "old"]
    assert [entry.path.name for entry in list_runs(sweep)] == ["one", "sweep-digits"]
    assert [entry.path.name for entry in list_runs(tmp_path / "old")] == ["old"]


def test_a_run_says_what_it_is(tmp_path: Path):
    names = {"label": "pilot-fedavg", "name": "pilot", "tags": ["a", "b"], "note": "first"}
    metrics = [*accuracies(0.1, 0.6), {"round": 2, "skipped": "too few", "accuracy": None}]
    entry = listed(write_run(tmp_path / "run", metrics, rounds=5, **names))
    assert (entry.name, entry.label, entry.tags, entry.note) == ("pilot", "pilot-fedavg", ("a", "b"), "first")
    assert (entry.done, entry.planned, entry.measure, entry.value) == (2, 5, "accuracy", 0.6)
    assert entry.settings["loss.name"] == "nce+rce"
    record = read_run(tmp_path / "run")
    assert (record.tags, record.note) == (("a", "b"), "first")


def test_a_running_run_that_nobody_works_on_was_interrupted(tmp_path: Path):
    path = write_run(tmp_path, status="running")
    assert listed(path).state == "interrupted"
    directory = RunDirectory(path)
    directory.claim()
    try:
        assert listed(path).state == "running"
    finally:
        directory.finish("stopped", "")
    assert listed(path).state == "stopped"
    folder = os.open(path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # looking has left no lock behind
    os.close(folder)


def test_a_last_line_that_a_crash_cut_off_and_other_measures(tmp_path: Path):
    path = write_run(tmp_path / "torn", [{"round": 3, "dice": 0.7, "loss": 1.0}, {"round": 4, "train_loss": 2.0}])
    with (path / METRICS).open("a") as file:
        file.write('{"round": 5, "dice": 0.')
    entry = listed(path)
    assert (entry.done, entry.measure, entry.value) == (4, "dice", 0.7)
    assert listed(write_run(tmp_path / "none")).value is None


@pytest.mark.parametrize(
    ("name", "content"), [(STATUS, '{"status": '), (STATUS, "[]"), ("config.toml", "seed = "), (STATUS, "\udcff")]
)
def test_what_is_broken_is_listed_with_why(tmp_path: Path, name: str, content: str):
    write_run(tmp_path / "fine")
    (write_run(tmp_path / "broken") / name).write_text(content, errors="surrogateescape")
    found = {entry.path.name: entry for entry in list_runs(tmp_path)}
    assert (found["fine"].state, found["fine"].problem) == ("completed", "")
    assert found["broken"].state == "broken"
    assert name in found["broken"].problem


def test_a_sweep_counts_its_finished_runs_and_says_what_they_share(tmp_path: Path):
    design = design_of(("a", "b"), ("clean",), 2, tags=("x",), note="n")
    finished = enumerate(synthetic_runs(design, {"a": 0.5, "b": 0.6}))
    runs = [replace(run, settings={"task.name": "digits", "seed": place}) for place, run in finished]
    entry = listed(write_sweep(tmp_path / "done", design, runs))
    assert (entry.kind, entry.name, entry.state, entry.done, entry.planned) == ("sweep", "digits", "completed", 4, 4)
    assert (entry.axes, entry.tags, entry.note) == ("2 method x 1 noise x 2 seed", ("x",), "n")
    assert entry.settings["task.name"] == "digits"
    assert entry.settings["train.epochs"] == 5
    assert "seed" not in entry.settings
    assert listed(write_sweep(tmp_path / "part", design, [runs[0], pending(runs[1])])).state == "unfinished"
    assert listed(write_sweep(tmp_path / "fail", design, [runs[0], failed(runs[1])])).state == "failed"
    broken = write_sweep(tmp_path / "broken", design, runs)
    (broken / "sweep.sqlite").write_bytes(b"no database" * 100)
    assert listed(broken).state == "broken"


def test_blocks_repeat_the_first_column_where_a_line_is_too_long():
    assert blocks(ROWS, 1000).count("\n") == 3
    text = blocks([(*row[:2], "7") for row in ROWS], 20)
    first, second = text.split("\n\n")
    assert [line.split() for line in first.splitlines()[2:]] == [["one", "completed"], ["another", "failed"]]
    assert [line.split() for line in second.splitlines()[2:]] == [["one", "7"], ["another", "7"]]
    assert max(map(len, text.splitlines())) <= 20


def test_narrow_lines_shorten_texts_then_leave_columns_out():
    wide, left = narrowed(ROWS, 1000)
    assert ("text " * 8).rstrip() in wide
    assert left == []
    cut, left = narrowed(ROWS, 40)
    assert max(map(len, cut.splitlines())) <= 40
    assert "…" in cut.splitlines()[3]
    assert left == []
    few, left = narrowed(ROWS, 20)
    assert left == ["a long heading"]
    assert few.splitlines()[3] == "another  failed"


def test_markdown_keeps_what_a_name_holds():
    assert markdown([("a", "b"), ("x|y", "_z_")]).splitlines() == ["| a | b |", "|---|---:|", r"| x\|y | \_z\_ |"]


def test_status_of_older_runs_has_no_tags(tmp_path: Path):
    path = write_run(tmp_path)
    content = json.loads((path / STATUS).read_text())
    (path / STATUS).write_text(json.dumps({**content, "tags": "a"}))
    assert listed(path).tags == ()
    assert read_run(path).tags == ()
