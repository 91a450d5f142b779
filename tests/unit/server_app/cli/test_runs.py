"""``winnow runs`` and ``winnow compare``: what a person finds, filters and exports, and what an error says."""

import csv
import io
import json
from pathlib import Path

import pytest
import tomli_w

from server_app.cli import main
from server_app.cli.runs import parse_condition
from server_app.report.listing import ListedRun
from tasks.config import DEFAULTS, nest
from tests.run_directories import accuracies, write_run
from tests.sweep_cases import design_of, synthetic_runs, write_sweep


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs of two names below ``runs/`` of the working directory."""
    for place, (name, variant, loss) in enumerate([("pilot", "", "ce"), ("main", "a", "ce"), ("main", "b", "gce")]):
        label = "-".join(part for part in (name, variant) if part)
        path = write_run(
            tmp_path / f"runs/2026013{place}-100000-{label}",
            accuracies(0.1, 0.5 + 0.1 * place),
            rounds=1,
            label=label,
            name=name,
            tags=["long"] if variant else [],
            started=f"2026-01-3{place}T10:00:00+00:00",
        )
        (path / "config.toml").write_text(tomli_w.dumps(nest({**DEFAULTS, "loss.name": loss, "seed": 3})))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def test_runs_are_listed_newest_first(capsys: pytest.CaptureFixture[str]):
    head, _, *rows = printed(capsys, "runs").splitlines()
    assert head.split() == ["run", "state", "rounds", "accuracy", "task", "method", "noise", "tags"]
    assert [row.split()[0].rpartition("0000-")[2] for row in rows] == ["main-b", "main-a", "pilot"]
    assert "completed  1/20    70.0 %    digits  gce + geometric-median  auto, max = 0.85  long" in rows[0]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (["tag=long"], ["main-b", "main-a"]),
        (["tag!=long"], ["pilot"]),
        (["tag=long", "loss=gce"], ["main-b"]),
        (["loss.name=gce,ce", "name=pilot"], ["pilot"]),
        (["seed=3.0", "state=completed", "train.learning-rate=0.10"], ["main-b", "main-a", "pilot"]),
        (["state=failed"], []),
        (["train.augment=true", "kind=run", "task=digits", "noise=auto"], ["main-b", "main-a", "pilot"]),
    ],
)
def test_where_chooses(capsys: pytest.CaptureFixture[str], where: list[str], found: list[str]):
    entries = json.loads(printed(capsys, "runs", "--where", *where, "--format", "json"))
    assert [entry["path"].rpartition("0000-")[2] for entry in entries] == found


def test_json_and_csv_hold_the_same(here: Path, capsys: pytest.CaptureFixture[str]):
    write_sweep(here / "runs/sweep-x", *sweep())
    (write_run(here / "runs/broken") / "status.json").write_text("{")
    entries = json.loads(printed(capsys, "runs", "--format", "json"))
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "runs", "--format", "csv"))))
    assert [row["path"] for row in rows] == [entry["path"] for entry in entries]
    assert [row["value"] for row in rows] == [
        "" if entry["value"] is None else str(entry["value"]) for entry in entries
    ]
    kinds = {Path(entry["path"]).name: (entry["kind"], entry["state"], entry["method"]) for entry in entries}
    assert kinds["sweep-x"] == ("sweep", "completed", "1 method x 1 noise x 1 seed")
    assert kinds["broken"][1] == "broken"
    assert "status.json is not JSON" in printed(capsys, "runs").splitlines()[-1]


def sweep():  # type: ignore[no-untyped-def]
    design = design_of(("a",), ("clean",), 1)
    return design, synthetic_runs(design, {"a": 0.5})


def test_a_narrow_terminal_says_what_it_leaves_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "62")
    text = printed(capsys, "runs")
    assert max(map(len, text.splitlines()[:-1])) <= 62
    assert text.splitlines()[-1] == "(no room for method, noise, tags: --format csv has all)"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["runs", "nowhere"], "there is no folder"),
        (["runs", "--where", "tags"], "--where tags: expected FIELD=VALUE"),
        (["runs", "--where", "stat=x"], "--where: unknown field 'stat'; did you mean 'state'?"),
        (["compare", "pilott"], "no run 'pilott': neither a folder nor a name below runs/; did you mean 'pilot'?"),
        (["compare", "zzz"], "winnow runs lists them"),
        (["compare", "runs"], "runs is not a run directory"),
    ],
)
def test_errors_say_what_to_do(capsys: pytest.CaptureFixture[str], argv: list[str], said: str):
    assert main(argv) == 2
    assert said in capsys.readouterr().err


def test_a_sweep_is_compared_by_another_command(here: Path, capsys: pytest.CaptureFixture[str]):
    write_sweep(here / "runs/sweep-x", *sweep())
    assert main(["compare", "pilot", "runs/sweep-x"]) == 2
    assert "runs/sweep-x is a sweep: show it with  winnow results runs/sweep-x" in capsys.readouterr().err


def test_compare_takes_folders_and_names_each_run_once(here: Path, capsys: pytest.CaptureFixture[str]):
    rows = printed(capsys, "compare", "runs/20260130-100000-pilot", "main", "main-b").split("\n\n")[0].splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["pilot", "main-a", "main-b"]
    assert rows[2].split()[2:5] == ["70.0", "%", "+20.0"]


def test_compare_shows_the_settings_that_differ_and_no_others(capsys: pytest.CaptureFixture[str]):
    text = printed(capsys, "compare", "main-a", "main-b")
    settings = text.partition("Settings that differ:\n\n")[2].splitlines()
    assert settings[0].split() == ["setting", "main-a", "main-b"]
    assert [line.split() for line in settings[2:]] == [["loss.name", '"ce"', '"gce"']]
    assert "All settings are the same." in printed(capsys, "compare", "pilot", "main-a")


def test_compare_exports_plain_numbers(capsys: pytest.CaptureFixture[str]):
    entries = json.loads(printed(capsys, "compare", "main", "--format", "json"))
    assert [entry["accuracy"] for entry in entries] == [0.6, 0.7]
    assert entries[1]["versus_first"] == pytest.approx(0.1)
    assert [entry["settings"] for entry in entries] == [{"loss.name": "ce"}, {"loss.name": "gce"}]
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "compare", "main", "--format", "csv"))))
    assert [(row["accuracy"], row["loss.name"]) for row in rows] == [("0.6", "ce"), ("0.7", "gce")]
    assert printed(capsys, "compare", "main", "--format", "markdown").startswith("| run | rounds | accuracy |")


def test_compare_fits_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = printed(capsys, "compare", "main")
    assert max(map(len, text.splitlines())) <= 60
    assert sum(line.startswith("run ") for line in text.splitlines()) > 1


def test_a_condition_is_false_for_a_setting_that_a_run_does_not_know():
    run = ListedRun(Path("x"), "run", settings={"train.learning-rate": 0.1})
    assert parse_condition("train.learning-rate=1e-1")(run)
    assert not parse_condition("train.epochs=5")(run)
    assert parse_condition("train.epochs!=5")(run)
