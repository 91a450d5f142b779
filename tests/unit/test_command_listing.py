"""``winnow list`` shows all that can be chosen, and ``report`` and ``compare`` what was recorded."""

import importlib
from pathlib import Path

import pytest

from server_app.command import main
from server_app.command.listing import KINDS, choices, section
from server_app.run_directory import RunDirectory
from tasks.plugin import Registry
from tasks.settings import Settings


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_of_a_kind_is_listed_with_a_description(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, attribute = KINDS[kind].partition(":")
    table = getattr(importlib.import_module(module), attribute)
    names = [entry.name for entry in table.entries()] if isinstance(table, Registry) else sorted(table)
    assert names
    assert [name for name, _ in choices(kind)] == names
    assert [name for name, text in choices(kind) if not text] == []
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{kind}:"
    assert [line.split()[0] for line in lines[1:] if not line.startswith("   ")] == names


def test_without_a_kind_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == [f"{kind}:" for kind in KINDS]


def test_papers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "aggregator"]) == 0
    assert "Pillutla, Kakade, Harchaoui, IEEE TSP 2022" in " ".join(capsys.readouterr().out.split())


def test_long_descriptions_wrap_under_their_column() -> None:
    text = section("loss", [("a", "word " * 30), ("longer-name", "short")], width=60)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[1].startswith("  a            word")
    assert lines[2].startswith(" " * 15 + "word")
    assert lines[-1] == "  longer-name  short"


def test_reports_are_written_and_runs_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for label in ("one", "two"):
        directory = RunDirectory.create(tmp_path, label, Settings())
        directory.update_status(status="completed", label=label, rounds_done=0)
        paths.append(str(directory.path))
    assert main(["report", *paths]) == 0
    assert capsys.readouterr().out.split() == [f"{path}/report.html" for path in paths]
    assert main(["compare", *paths]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split()[:2] == ["run", "rounds"]
    assert [row.split()[0] for row in rows if row.startswith(("one", "two"))] == ["one", "two"]
