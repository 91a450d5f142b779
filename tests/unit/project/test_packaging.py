"""Flower's app bundle and an installed wheel carry the templates of the pages, and make the same pages from them."""

import io
import shutil
import subprocess
import sys
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
import sys
from pathlib import Path
folder, run, preview = map(Path, sys.argv[1:])
sys.path.insert(0, str(folder))
import server_app
from server_app.report.page import render_page, write_report

assert Path(server_app.__file__).is_relative_to(folder), server_app.__file__
write_report(run)
preview.write_text(render_page("preview", **{PREVIEW!r}))
"""


def bundle(folder: Path) -> zipfile.ZipFile:
    """Flower's bundle of this checkout, as ``flwr build`` and ``flwr run`` make it."""
    return zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT)))


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


@pytest.fixture(scope="module", params=[bundle, wheel])
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param.__name__)
    with request.param(folder) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_pages_are_made_of_the_templates_that_travel(unpacked: Path, tmp_path: Path) -> None:
    there = {path.name for path in (unpacked / "server_app/report/templates").iterdir()}
    assert there == set(TEMPLATES.list_templates())
    run, preview = write_run(tmp_path / "run", label=HOSTILE), tmp_path / "preview.html"
    pages = [write_report(run).read_text(), render_page("preview", **PREVIEW)]
    (run / "report.html").unlink()
    arguments = map(str, (unpacked, run, preview))
    subprocess.run([sys.executable, "-c", RENDER, *arguments], cwd=tmp_path, check=True)
    assert [(run / "report.html").read_text(), preview.read_text()] == pages
    for page in pages:
        assert HOSTILE not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_wheel_carries_the_recipes(tmp_path: Path) -> None:
    recipes = {f"server_app/recipes/{path.name}" for path in (ROOT / "server_app/recipes").iterdir()}
    with wheel(tmp_path) as archive:
        assert {name for name in archive.namelist() if name.startswith("server_app/recipes/")} == recipes
    assert "server_app/recipes/demo.toml" in recipes


def test_each_carries_the_app_only(unpacked: Path) -> None:
    names = {path.name for path in unpacked.iterdir()}
    assert {*PACKAGES} < names
    assert not {"tests", "benchmarks", "docs"} & names


def test_the_wheel_carries_the_licence(tmp_path: Path) -> None:
    with wheel(tmp_path) as archive:
        (licence,) = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
