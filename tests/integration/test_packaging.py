"""Flower's app bundle and an installed wheel carry the templates of the pages, and make the same pages from them."""

import importlib
import io
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from server_app.report.page import TEMPLATES, render_page, write_report
from tests.conftest import ROOT
from tests.run_directories import write_run

PACKAGES = ("server_app", "client_app", "strategies", "tasks")
HOSTILE = "<script>alert(1)</script>"
PREVIEW = {"title": HOSTILE, "clients_note": "", "transitions_note": "", "picture": "", "picture_width": 1}
PREVIEW |= {"has_wanted": False, **dict.fromkeys(["warnings", "figures", "class_names", "choices"], ())}
PREVIEW |= dict.fromkeys(["clients", "transitions"], ())
RENDER = f"""
import importlib, json, os, sys
from pathlib import Path
for name in ("jinja2", "safetensors.numpy", "torch", "flwr.app", "flwr.serverapp"):  # what takes long and is not ours
    importlib.import_module(name)
for folder, run, preview in json.loads(sys.argv[1]):
    if os.fork() == 0:
        sys.path.insert(0, folder)
        import server_app
        from server_app.report.page import render_page, write_report

        assert Path(server_app.__file__).is_relative_to(folder), server_app.__file__
        write_report(Path(run))
        Path(preview).write_text(render_page("preview", **{PREVIEW!r}))
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"no pages from {{folder}}")
"""
PLANNED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from server_app.cli.config import CommandError, make_plan
plan = make_plan(["demo"], None, Path.cwd())
print(plan.app, plan.flat["num-server-rounds"] > 0)
try:
    plan.sent()
except CommandError as error:
    print(error)
"""
KINDS = ("bundle", "wheel")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without the environment: to leave out each of its files takes Flower five seconds."""
    left = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "runs", "data")
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("checkout") / "winnow", ignore=left)


def bundle(checkout: Path) -> zipfile.ZipFile:
    """Flower's bundle of this checkout, as ``flwr build`` and ``flwr run`` make it."""
    return zipfile.ZipFile(io.BytesIO(build_fab_from_disk(checkout)))


def wheel(folder: Path) -> zipfile.ZipFile:
    """The wheel that pip would build and install, made of a copy because setuptools leaves files beside its sources."""
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def archives(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, zipfile.ZipFile]:
    return {"bundle": bundle(checkout), "wheel": wheel(tmp_path_factory.mktemp("wheel"))}


@pytest.fixture(scope="module")
def unpacked(archives: dict[str, zipfile.ZipFile], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in folders.items():
        archives[kind].extractall(folder)
    return folders


def test_pages_are_made_of_the_templates_that_travel(unpacked: dict[str, Path], tmp_path: Path) -> None:
    for folder in unpacked.values():
        there = {path.name for path in (folder / "server_app/report/templates").iterdir()}
        assert there == set(TEMPLATES.list_templates())
    runs = {kind: write_run(tmp_path / kind / "run", label=HOSTILE) for kind in KINDS}
    pages = {kind: [write_report(run).read_text(), render_page("preview", **PREVIEW)] for kind, run in runs.items()}
    for run in runs.values():
        (run / "report.html").unlink()
    made = [(str(unpacked[kind]), str(run), str(tmp_path / kind / "preview.html")) for kind, run in runs.items()]
    subprocess.run([sys.executable, "-c", RENDER, json.dumps(made)], cwd=tmp_path, check=True)
    for kind, run in runs.items():
        assert [(run / "report.html").read_text(), (tmp_path / kind / "preview.html").read_text()] == pages[kind]
        for page in pages[kind]:
            assert HOSTILE not in page
            assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize(("folder", "known"), [("recipes", "demo.toml"), ("sweeps", "digits-quick.toml")])
def test_a_wheel_carries_what_is_run_by_name(archives: dict[str, zipfile.ZipFile], folder: str, known: str) -> None:
    files = {path.name for path in (ROOT / "server_app" / folder).glob("*.toml")}
    prefix = f"server_app/{folder}/"
    carried = {name for name in archives["wheel"].namelist() if name.startswith(prefix) and name.endswith(".toml")}
    assert carried == {prefix + name for name in files}
    assert known in files


def test_the_packages_of_a_wheel_know_their_settings_and_are_not_sent_to_nodes(
    unpacked: dict[str, Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PLANNED, str(unpacked["wheel"])]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == f"{unpacked['wheel'].resolve()} True"
    assert said[1].startswith(
        "Flower sends nodes the app's folder, and here are only installed packages: go to a checkout"
    )


def test_flower_hub_would_take_it(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flwr.cli.utils import validate_project_name

    publish = importlib.import_module("flwr.cli.app_cmd.publish")  # the package's attribute of that name is its command
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    publish._validate_description(project["description"])
    validate_project_name(project["name"], "Flower App name")
    validate_project_name(checkout.name, "Flower App directory name")
    publish._validate_files(publish._collect_file_paths(checkout))
    assert "Validation passed" in capsys.readouterr().out


def test_what_the_hub_hands_out_makes_the_same_bundle(
    checkout: Path, archives: dict[str, zipfile.ZipFile], tmp_path: Path
) -> None:
    """``flwr new`` unpacks what was published; ``flwr run`` there builds the bundle, whose patterns must all fit."""
    publish = importlib.import_module("flwr.cli.app_cmd.publish")
    folder = tmp_path / "winnow"
    for path in publish._collect_file_paths(checkout):
        place = folder / path.relative_to(checkout.resolve())
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    assert bundle(folder).namelist() == archives["bundle"].namelist()


@pytest.mark.parametrize("kind", KINDS)
def test_each_carries_the_app_only(kind: str, unpacked: dict[str, Path]) -> None:
    names = {path.name for path in unpacked[kind].iterdir()}
    assert {*PACKAGES} < names
    assert not {"tests", "benchmarks", "docs"} & names


def test_the_wheel_carries_the_licence(archives: dict[str, zipfile.ZipFile]) -> None:
    names = archives["wheel"].namelist()
    (licence,) = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert archives["wheel"].read(licence) == (ROOT / "LICENSE").read_bytes()
