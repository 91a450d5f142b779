"""``winnow list`` shows all that can be chosen, and ``report`` and ``compare`` what was recorded."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client_app.losses import PRESETS
from server_app.cli import main
from server_app.cli.show import PACKAGES, kinds, registries, section
from server_app.storage.run_directory import RunDirectory
from tasks.plugins import Registry
from tasks.settings import Settings
from tests.conftest import ROOT

KINDS = (
    "task",
    "model",
    "loss",
    "preset",
    "noise",
    "noise-rates",
    "partition",
    "attack",
    "method",
    "aggregator",
    "pre-aggregator",
    "server-optimizer",
    "strategy",
    "detector",
    "callback",
)
LISTED = {registry.listed: registry for registry in registries()}
OURS = ("tasks", "client_app", "strategies", "server_app")


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_of_a_kind_is_listed_with_a_description(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(PRESETS) if kind == "preset" else [entry.name for entry in LISTED[kind].entries()]
    assert names
    assert [name for name, _ in kinds()[kind]] == names
    assert [name for name, text in kinds()[kind] if not text] == []
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{kind}:"
    assert [line.split()[0] for line in lines[1:] if not line.startswith("   ")] == names


def test_without_a_kind_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == [f"{kind}:" for kind in KINDS]


def test_an_unknown_kind_is_refused_with_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "agregator"])
    assert "unknown kind 'agregator'; did you mean 'aggregator'? choices: aggregator, attack" in capsys.readouterr().err


def test_the_command_starts_without_the_libraries_that_only_the_choices_need() -> None:
    code = (
        "import sys; from server_app.cli.show import add_parser; import argparse; "
        "add_parser(argparse.ArgumentParser().add_subparsers()); print({'torch', 'client_app'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n"


def test_every_registry_of_the_product_is_listed() -> None:
    found: dict[int, str] = {}
    for package in OURS:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if not module.name.endswith("__main__"):
                values = vars(importlib.import_module(module.name)).items()
                found |= {id(value): f"{module.name}:{name}" for name, value in values if isinstance(value, Registry)}
    assert [place for key, place in found.items() if key not in map(id, LISTED.values())] == []
    assert len(found) == len(LISTED) == len(KINDS) - 1  # presets are a table


@pytest.mark.parametrize("kind", LISTED)
def test_a_built_in_is_registered_where_it_is_defined(kind: str) -> None:
    for entry in LISTED[kind].entries():
        if entry.factory.__module__.startswith("flwr."):
            continue
        [node] = [one for one in definitions(entry.factory) if one.name == entry.factory.__name__]
        decorators = [one for one in node.decorator_list if isinstance(one, ast.Call)]
        names = [ast.literal_eval(one.args[0]) for one in decorators if ast.unparse(one.func).endswith(".register")]
        assert entry.name in names


@pytest.mark.parametrize("kind", LISTED)
def test_one_import_line_makes_a_module_s_built_ins_known(kind: str) -> None:
    [registered] = [
        module
        for module in map(importlib.import_module, PACKAGES)
        if any(value is LISTED[kind] for value in vars(module).values())
    ]
    for entry in LISTED[kind].entries():
        file = inspect.getsourcefile(entry.factory)
        assert file
        if entry.factory.__module__.startswith("flwr."):
            continue
        importers = {Path(str(registered.__file__)), Path(file).parent / "__init__.py"}
        nodes = [node for importer in importers for node in ast.walk(ast.parse(importer.read_text()))]
        lines = [one for one in nodes if isinstance(one, ast.ImportFrom) and one.module == entry.factory.__module__]
        assert len(lines) == 1, entry.name


def definitions(factory: Callable[..., object]) -> list[ast.ClassDef | ast.FunctionDef]:
    """The classes and functions at the top of the module that defines a factory."""
    tree = ast.parse(Path(str(inspect.getsourcefile(factory))).read_text())
    return [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


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
