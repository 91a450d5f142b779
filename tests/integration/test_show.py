"""``winnow list`` shows all that can be chosen, ``report`` and ``compare`` what was recorded, ``preview`` the data."""

import ast
import base64
import importlib
import importlib.util
import inspect
import pkgutil
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client_app.losses import PRESETS
from server_app.cli import main
from server_app.cli.catalog import PACKAGES
from server_app.cli.config import RECIPES, SWEEPS
from server_app.cli.docstrings import plain
from server_app.cli.listing import kinds
from server_app.report.preview_page import draw_picture, key_figures, render
from server_app.storage.run_directory import RunDirectory
from tasks.plugins import Registry
from tasks.settings import Settings
from tests.conftest import ROOT
from tests.registries import registries
from tests.unit.server_app.report.test_page import Outline
from tests.unit.server_app.report.test_preview import hand_made

FOLDERS = {"recipe": RECIPES, "sweep": SWEEPS}
KINDS = (
    "recipe",
    "sweep",
    "task",
    "encoder",
    "model",
    "loss",
    "preset",
    "noise",
    "noise-rates",
    "partition",
    "attack",
    "method",
    "pre-aggregator",
    "aggregator",
    "server-optimizer",
    "strategy",
    "detector",
    "callback",
)
LISTED = {registry.listed: registry for registry in registries()}
OURS = ("tasks", "client_app", "strategies", "server_app")


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_of_a_kind_is_listed_with_a_description(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = {kind: sorted(path.stem for path in folder.glob("*.toml")) for kind, folder in FOLDERS.items()}
    tables = {"preset": sorted(PRESETS), **files}
    names = tables[kind] if kind in tables else [entry.name for entry in LISTED[kind].entries()]
    assert names
    assert [choice.name for choice in kinds()[kind]] == names
    assert [choice.name for choice in kinds()[kind] if not choice.summary] == []
    if kind in LISTED:  # the catalog reads the source, the registries are what a run chooses from
        registered = {entry.name: (plain(entry.summary), entry.paper, entry.links) for entry in LISTED[kind].entries()}
        assert {each.name: (each.summary, each.paper, each.links) for each in kinds()[kind]} == registered
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{kind}:"
    assert [line.strip() for line in lines if re.match(r"  \S", line)] == names


def test_without_a_kind_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == [f"{kind}:" for kind in KINDS]


def test_an_unknown_kind_is_refused_with_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "agregator"])
    assert "unknown kind 'agregator'; did you mean 'aggregator'? choices: aggregator, attack" in capsys.readouterr().err


def test_every_registry_of_the_product_is_listed() -> None:
    found: dict[int, str] = {}
    for package in OURS:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if not module.name.endswith("__main__"):
                values = vars(importlib.import_module(module.name)).items()
                found |= {id(value): f"{module.name}:{name}" for name, value in values if isinstance(value, Registry)}
    assert [place for key, place in found.items() if key not in map(id, LISTED.values())] == []
    assert len(found) == len(LISTED) == len(KINDS) - 3  # recipes and sweeps are files, presets a table


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
        if entry.factory.__module__ == registered.__name__ or entry.factory.__module__.startswith("flwr."):
            continue  # Flower's own, and a kind whose built-ins are all in the module that is read
        importers = {Path(str(registered.__file__)), Path(file).parent / "__init__.py"}
        nodes = [node for importer in importers for node in ast.parse(importer.read_text()).body]
        lines = [one for one in nodes if isinstance(one, ast.ImportFrom) and one.module == entry.factory.__module__]
        assert len(lines) == 1, entry.name


def definitions(factory: Callable[..., object]) -> list[ast.ClassDef | ast.FunctionDef]:
    """The classes and functions at the top of the module that defines a factory."""
    tree = ast.parse(Path(str(inspect.getsourcefile(factory))).read_text())
    return [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def test_papers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "aggregator"]) == 0
    assert "Pillutla, Kakade, Harchaoui, IEEE TSP 2022" in " ".join(capsys.readouterr().out.split())


def test_reports_are_written_and_runs_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # all columns side by side
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


SMALL = ["federation.num-clients=3", "partition.args=alpha = 1.0"]
HOSTILE = ("<script>alert(1)</script>", 'a" onload="alert(2)')


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header that every PNG starts with (ISO/IEC 15948)."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[12:16] == b"IHDR"
    return struct.unpack(">II", content[16:24])  # type: ignore[return-value]


def test_picture_and_page_are_written_and_their_paths_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["preview", *SMALL, "--output", "out/deep"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [str(here / "out/deep/preview.png"), str(here / "out/deep/preview.html")]
    assert "wrong labels: " in lines[-3]
    picture, page = (here / "out/deep/preview.png").read_bytes(), (here / "out/deep/preview.html").read_text()
    assert min(png_size(picture)) > 800
    assert sorted(path.name for path in (here / "out/deep").iterdir()) == ["preview.html", "preview.png"]
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(text) for text in embedded] == [picture]


def test_the_page_needs_nothing_else_and_shows_every_number() -> None:
    survey = hand_made()
    page = render(survey, b"png", 10.0, ["noise.args has no effect"])
    outline = Outline(page)
    links = [value for name, value in outline.attributes if name in ("href", "src", "action", "xlink:href")]
    assert links == [f"data:image/png;base64,{base64.b64encode(b'png').decode()}"]
    assert "script" not in outline.tags
    rows = [" ".join(row.split()) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    cells = [re.sub(r"<[^>]+>", "|", row).replace("\u00a0", " ") for row in rows]
    values = [[cell.strip() for cell in row.split("|") if cell.strip()] for row in cells]
    assert ["0", "3", "40.0 %", "33.3 %", "2", "1"] in values
    assert ["1", "1", "90.0 %", "100.0 %", "1"] in values  # a class that the client does not have stays empty
    assert ["cat", "2", "50.0", "50.0"] in values
    assert "Warning: noise.args has no effect." in outline.text


def test_hostile_class_names_stay_text() -> None:
    outline = Outline(render(hand_made(class_names=HOSTILE), b"png", 10.0))
    assert "script" not in outline.tags
    assert "onload" not in [name for name, _ in outline.attributes]
    assert HOSTILE[0] in outline.text


def test_without_noise_there_is_no_worst_client() -> None:
    clean = hand_made(realised=np.zeros(2), wanted=None)
    assert "Worst client" in [figure["name"] for figure in key_figures(hand_made())]
    assert "Worst client" not in [figure["name"] for figure in key_figures(clean)]
    assert "Wanted" not in render(clean, b"png", 10.0)


def test_equal_surveys_give_equal_pictures_and_many_clients_stay_drawable() -> None:
    pytest.importorskip("matplotlib")
    first, width = draw_picture(hand_made())
    assert draw_picture(hand_made())[0] == first
    assert draw_picture(hand_made(realised=np.zeros(2)))[0] != first
    draws = np.random.default_rng(0)
    counts = draws.integers(0, 9, (300, 2))
    many = hand_made(examples=counts.sum(1) + 1, counts=counts, realised=draws.random(300), wanted=draws.random(300))
    picture, wide = draw_picture(many)
    assert width < wide < 30
    assert png_size(picture)[0] == pytest.approx(160 * wide, abs=1)


def test_names_are_drawn_as_they_are() -> None:
    pytest.importorskip("matplotlib")
    plain = draw_picture(hand_made(class_names=("a", "b")))[0]
    assert draw_picture(hand_made(class_names=("$\\frac$", "$b$")))[0] != plain


def test_arms_with_the_same_data_share_one_preview(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["preview", *SMALL, 'variants=fedavg = { loss.name = "ce" }\nwinnow = {}']) == 0
    assert capsys.readouterr().out.startswith("All variants have the same data (fedavg, winnow); one preview shows it.")
    assert sorted(path.name for path in (here / "preview").iterdir()) == ["preview.html", "preview.png"]


def test_arms_with_other_data_have_a_page_each(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["preview", *SMALL, """variants=clean = { noise.name = "none" }\nnoisy = {}"""]) == 0
    out = capsys.readouterr().out
    names = ["preview-clean.html", "preview-clean.png", "preview-noisy.html", "preview-noisy.png"]
    assert sorted(path.name for path in (here / "preview").iterdir()) == names
    assert out.index("variant clean") < out.index("wrong labels: none") < out.index("variant noisy")


def test_a_noise_that_hides_the_labels_is_warned_of_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    noise = ["noise.name=pair-flip", "noise.rates=constant", "noise.rates-args=rate = 0.6"]
    assert main(["preview", *SMALL, *noise]) == 0
    captured = capsys.readouterr()
    warnings = [line for line in captured.out.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: 3 of 3 clients have labels that hide the true ones. Client 0: PairFlip")
    assert captured.err == ""
    assert "3 of 3 clients" in (here / "preview/preview.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.epochs=0"], "train.epochs = 0: must be at least 1"),
        (["noise.name=symetric"], "did you mean 'symmetric'?"),
        (["partition.args=alpha = 1.0, min_size = 900"], "not enough for 3 clients of at least 900"),
        (["noise.name=human", "noise.args=path = 'x.npz', column = 'y'"], "there is no label file"),
        (["--output", "blocked/preview"], "cannot write the preview into"),
    ],
)
def test_what_cannot_be_previewed_is_refused_and_leaves_nothing(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (here / "blocked").write_text("a file, where a folder is asked for")
    assert main(["preview", *SMALL, *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert [path.name for path in here.iterdir()] == ["blocked"]


def test_labels_of_other_data_are_refused_when_they_are_applied(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    np.savez(here / "human.npz", clean_label=np.zeros(1437, int), y=np.zeros(1437, int))
    words = [f"task.data-path={here}", "noise.name=human", 'noise.args=path = "human.npz", column = "y"']
    assert main(["preview", *SMALL, *words]) == 2
    assert "it belongs to other data or is in another order" in capsys.readouterr().err


def test_without_matplotlib_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    assert main(["preview", *SMALL]) == 2
    assert "pip install -e '.[report]'" in capsys.readouterr().err
    assert list(here.iterdir()) == []
