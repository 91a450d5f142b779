"""``winnow results``: what it prints and writes, and what it says to a wrong question."""

import json
import sqlite3
import sys
from dataclasses import replace

import pytest

from server_app.cli import main
from server_app.sweep.database import FILE
from tests.sweep_cases import design_of, pending, synthetic_runs, write_sweep

DESIGN = design_of()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"), DESIGN, synthetic_runs(DESIGN))


def said(capsys, *words):
    """The exit status, and what was printed."""
    status = main(["results", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out + err


def test_the_table_fits_the_terminal(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    status, shown = said(capsys, folder)
    assert status == 0
    assert max(map(len, shown.splitlines())) <= 60
    assert "winnow has the best mean over all settings" in " ".join(shown.replace("\u00a0", " ").split())


def test_conditions_summary_and_baseline_are_taken(folder, capsys):
    words = ("--where", "noise!=clean", "method=winnow,median", "--summary", "best", "--baseline", "median")
    status, shown = said(capsys, folder, *words, "--format", "json")
    content = json.loads(shown)
    assert (status, content["summary"], content["baseline"]) == (0, "best", "median")
    assert list(content["overall"]) == ["winnow", "median"]
    assert {cell["setting"][0] for cell in content["cells"]} == {"symmetric", "asymmetric"}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.md", "| method |"),
        ("a.tex", r"% needs \usepackage{booktabs}"),
        ("a.csv", "method,noise,seed,"),
        ("a.json", "{"),
    ],
)
def test_the_ending_of_the_file_says_the_format(folder, tmp_path, capsys, name, start):
    status, shown = said(capsys, folder, "--output", tmp_path / name)
    assert (status, shown) == (0, f"{tmp_path / name}\n")
    assert (tmp_path / name).read_text().startswith(start)


def test_parquet_is_written_beside_what_is_printed(folder, tmp_path, capsys):
    status = main(["results", str(folder), "--format", "csv-cells", "--parquet", str(tmp_path / "all.parquet")])
    out, err = capsys.readouterr()
    assert (status, err) == (0, f"{tmp_path / 'all.parquet'}\n")
    assert out.startswith("method,noise,seeds,mean,")
    assert (tmp_path / "all.parquet").read_bytes()[:4] == b"PAR1"


def test_a_sweep_that_has_just_begun_is_shown(tmp_path, capsys):
    runs = synthetic_runs(DESIGN)
    write_sweep(tmp_path, DESIGN, [pending(run) for run in runs])
    status, shown = said(capsys, tmp_path)
    assert status == 0
    assert "45 of 45 runs have no value" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--where", "nois=clean"], "unknown axis or setting 'nois'; did you mean 'noise'? axes: method, noise, seed"),
        (["--where", "noise=clen"], "no run has noise = 'clen'; did you mean 'clean'?"),
        (["--where", "clean"], "--where clean: expected AXIS=OPTION"),
        (["--measure", "f1"], "no run has recorded the measure 'f1'; choices: accuracy, loss"),
        (["--baseline", "x"], "--baseline: no method 'x'; choices: fedavg, median, winnow"),
        (["--output", "a.xls"], "say with --format what it is to hold, or choose another ending"),
        (["--output", "/nowhere/a.md"], "cannot write /nowhere/a.md"),
    ],
)
def test_a_wrong_question_is_explained(folder, capsys, words, problem):
    status, shown = said(capsys, folder, *words)
    assert status == 2
    assert problem in shown


def test_best_needs_validation_data(tmp_path, capsys):
    runs = synthetic_runs(DESIGN, rounds=2)
    write_sweep(tmp_path, DESIGN, [replace(run, series={"accuracy": run.series["accuracy"]}) for run in runs])
    status, shown = said(capsys, tmp_path, "--summary", "best")
    assert status == 2
    assert "45 finished runs have none" in shown


def test_folders_that_hold_no_results_are_refused(tmp_path, capsys):
    assert said(capsys, tmp_path)[0] == 2
    assert f"it has no file {FILE}" in said(capsys, tmp_path)[1]
    file = sqlite3.connect(tmp_path / FILE)
    file.executescript("CREATE TABLE things (a); PRAGMA user_version = 99")
    file.close()
    status, shown = said(capsys, tmp_path)
    assert status == 2
    assert "results of format 99, this version reads format 1" in shown


def test_without_pyarrow_parquet_says_what_to_install(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, shown = said(capsys, folder, "--parquet", tmp_path / "x")
    assert status == 2
    assert "pip install -e '.[parquet]'" in shown
