"""The page of a sweep: self-contained, well formed, safe whatever names are in it, and true to the comparison."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from server_app.sweep.comparison import compare
from server_app.sweep.database import SweepDesign, SweepRun
from server_app.sweep.page import headline, render_sweep, write_sweep_page
from server_app.sweep.provenance import common_settings, differing_settings, durations, versions
from server_app.sweep.results import BEST_MARK
from tests.sweep_cases import design_of, failed, pending, run_of, synthetic_runs, write_sweep
from tests.unit.server_app.report.test_page import HOSTILE, Outline

LOSSES = {"fedavg": "ce", "winnow": "fsanl", "median": "ce"}


def planned(**changes: object) -> tuple[SweepDesign, list[SweepRun]]:
    """Three methods with five seeds in three noises, each with its loss."""
    design = design_of(**changes)
    runs = [
        replace(run, settings={**run.settings, "loss.name": LOSSES[run.point["method"]], "train.epochs": 2})
        for run in synthetic_runs(design)
    ]
    return design, runs


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def table(page: str, label: str) -> list[list[str]]:
    """The texts of the cells of a table."""
    part = page.partition(f'aria-label="{label}"')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in cells]


def test_a_page_and_pictures_are_written_into_the_folder(tmp_path: Path):
    pytest.importorskip("matplotlib")
    design, runs = planned(methods=("fedavg", "winnow"), noises=("clean", "symmetric"), seeds=2)
    path = write_sweep_page(write_sweep(tmp_path / "sweep", design, runs))
    assert path == tmp_path / "sweep/index.html"
    kinds = {file.suffix for file in (tmp_path / "sweep/pictures").iterdir()}
    names = {file.stem for file in (tmp_path / "sweep/pictures").iterdir()}
    assert (kinds, names) == ({".png", ".pdf"}, {"progress", "noise", "heat-map", "ranks"})
    page = path.read_text()
    outline = Outline(page)
    assert "script" not in outline.tags
    assert outline.tags.count("svg") == 2 + 1 + 2 + 2 * 2  # panels, noise, heat map and ranks, twice a legend of two
    ids = [value for name, value in outline.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = [value for name, value in outline.attributes if name in ("href", "src", "action", "xlink:href")]
    assert all(link.startswith("#") for link in links)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in outline.attributes
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_tables_say_what_the_comparison_found(monkeypatch: pytest.MonkeyPatch):
    without_pictures(monkeypatch)
    design, runs = planned(seeds=8)
    comparison = compare(design, runs)
    page = render_sweep(comparison, runs)
    rows = table(page, "Results in each setting")
    assert rows[0] == ["method", "clean", "symmetric", "asymmetric"]
    assert [row[0] for row in rows[1:]] == ["winnow", "median", "fedavg"]  # by mean rank
    for row in rows[1:]:
        for text, setting in zip(row[1:], comparison.settings, strict=True):
            score = comparison.cells[row[0], setting]
            assert text.startswith(f"{100 * (score.mean or 0):.1f} ± {100 * (score.deviation or 0):.1f}")
            assert ("★" in text) == (score.mark == BEST_MARK)
    overall = {row[0]: row for row in table(page, "Over all settings")[1:]}
    difference = comparison.overall["winnow"].against_baseline
    assert difference
    assert difference.verdict == "better"
    assert overall["winnow"][-1].startswith(f"+{100 * (difference.mean or 0):.1f}, p ")
    assert "▲" in overall["winnow"][1]
    assert overall["fedavg"][-1] == ""
    scores = [*comparison.cells.values(), *comparison.overall.values()]
    assert page.count('class="num best"') == sum(score.mark == BEST_MARK for score in scores)
    text = " ".join(Outline(page).text.split()).replace("\u00a0", " ")
    for sentence in (*comparison.findings, *comparison.notes, headline(comparison)):
        assert sentence.replace("\u00a0", " ") in text
    assert "Install matplotlib for pictures" in text


def test_without_a_difference_nothing_is_called_better_or_worse(monkeypatch: pytest.MonkeyPatch):
    without_pictures(monkeypatch)
    design, runs = planned(seeds=2)
    page = render_sweep(compare(design, runs), runs)
    assert not {"▲", "▼", "☆"} & set(page)
    assert "significantly better" not in page.partition("<main>")[2]


def test_missing_runs_are_listed_with_why(monkeypatch: pytest.MonkeyPatch):
    without_pictures(monkeypatch)
    design, runs = planned()
    runs[1], runs[7] = failed(runs[1], HOSTILE), pending(runs[7])
    page = render_sweep(compare(design, runs), runs)
    rows = table(page, "Runs without a result")[1:]
    assert [row[0] for row in rows] == ["fedavg, clean, seed 2", "fedavg, symmetric, seed 3"]
    assert rows[1][1] == "has not started"
    assert "45 runs, 43 of them finished" in page
    assert "1 run failed" in page


def test_hostile_names_stay_text():
    pytest.importorskip("matplotlib")
    evil = HOSTILE.replace("\ud800", "")  # a sweep file is UTF-8, which has none
    design = design_of((evil, "b"), (evil, "c$x$"), 2, name=evil, note=evil, tags=(evil,))
    effects, costs = {evil: 0.7, "b": 0.8}, {evil: 0.0, "c$x$": 0.1}
    runs = [
        replace(run, settings={"loss.name": evil, "seed": 1}, versions={evil: evil})
        for run in synthetic_runs(design, effects, costs)
    ]
    outline = Outline(render_sweep(compare(design, runs), runs))
    assert not {"script", "img"} & set(outline.tags)
    assert not [name for name, _ in outline.attributes if name.startswith("on")]


def test_settings_that_an_axis_decides_are_told_from_common_ones():
    design, runs = planned()
    found = {(one.axis, one.option): one.settings for one in differing_settings(design, runs)}
    assert found["method", "fedavg"] == {"loss.name": '"ce"'}
    assert found["method", "winnow"] == {"loss.name": '"fsanl"'}
    assert set(found["noise", "clean"]) == {"noise.name"}
    assert ("seed", "1") not in found
    assert common_settings(runs) == {"train.epochs": "2"}
    tuned = [replace(run, settings={**run.settings, "x": place}) for place, run in enumerate(runs)]
    assert not any("x" in one.settings for one in differing_settings(design, tuned))  # no axis alone decides it


def test_versions_and_durations_are_of_the_runs():
    design, runs = planned(methods=("fedavg",), noises=("clean",), seeds=3)
    runs[2] = run_of(2, runs[2].point, runs[2].series, versions={"torch": "2.8.0"}, seconds=100.0, cpu_seconds=90.0)
    assert dict(versions(runs))["torch"] == "2.9.0 (2 runs); 2.8.0 (1 run)"
    [one] = durations(design, runs)
    assert (one.runs, one.usual, one.cpu) == (3, "13.0 s", "1 min 51 s")
