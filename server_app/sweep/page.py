"""Page of a sweep: one HTML file that needs nothing else, no script, no font, no network; and its pictures as files."""

from collections.abc import Sequence
from pathlib import Path

from server_app.report.page import render_page
from server_app.report.text import NONE, View, counted, duration, measure_title, single_line, unbroken
from server_app.sweep.comparison import compare
from server_app.sweep.curves import curves
from server_app.sweep.database import COMPLETED, FAILED, TUNING, SweepDatabase, SweepRun
from server_app.sweep.notes import Figures, p_text
from server_app.sweep.overviews import by_rank, heat_map, rank_plot
from server_app.sweep.pictures import Picture, noise_picture, progress_picture
from server_app.sweep.provenance import common_settings, differing_settings, durations, versions
from server_app.sweep.rendering import FOLDER, picture_view, write_pictures
from server_app.sweep.results import BEST_MARK, BETTER, NOT_WORSE, WORSE, Comparison, Difference, Score
from server_app.sweep.selection import name_of
from server_app.sweep.tuning_table import CHOSEN, tuning_note, tuning_rows
from tasks.files import replace_file

PAGE = "index.html"
SYMBOLS = {BEST_MARK: "★", NOT_WORSE: "☆", BETTER: "▲", WORSE: "▼"}


def write_sweep_page(folder: Path) -> Path:
    """Write ``index.html`` and the pictures of a sweep into its folder and return the page's path.

    Raises
    ------
    SweepError, ResultsError
        If there is no sweep, or nothing to compare.
    WriteError
        If a file cannot be written.
    """
    database = SweepDatabase(folder)
    try:
        design, runs = database.design(), database.runs()
    finally:
        database.close()
    comparison = compare(design, runs)
    path = folder / PAGE
    replace_file(path, render_sweep(comparison, runs, folder).encode(errors="replace"))
    return path


def render_sweep(comparison: Comparison, runs: Sequence[SweepRun], folder: Path | None = None) -> str:
    """Return the page of a sweep; with a ``folder`` its pictures are also written there as files.

    ``runs`` are all runs of the database: those that tuned settings are among them.
    """
    pictures, no_pictures = _pictures(comparison, folder)
    design, finals = comparison.design, comparison.runs
    return render_page(
        "sweep",
        name=design.name or "sweep",
        note=single_line(design.note, 2000),
        tags=design.tags,
        state=_state(comparison),
        headline=unbroken(headline(comparison)),
        figures=key_figures(comparison, runs),
        compared=design.compared,
        pictures=pictures,
        no_pictures=no_pictures,
        picture_files=FOLDER if pictures and folder else "",
        notes=[unbroken(note) for note in comparison.notes],
        missing=[(name_of(each.run), single_line(each.why)) for each in comparison.missing],
        differing=[one for one in differing_settings(design, finals) if one.settings],
        common=list(common_settings(finals).items()),
        tuning=unbroken(tuning_note(design)),
        chosen_mark=CHOSEN,
        tuning_rows=tuning_rows(design),
        durations=durations(design, finals),
        versions=versions(finals),
        **table_section(comparison),
        **overall_section(comparison),
    )


def _pictures(comparison: Comparison, folder: Path | None) -> tuple[list[View], str]:
    """Return the pictures that there are values for, or what to install; write them as files too."""
    drawn = curves(comparison, comparison.runs)
    made = progress_picture(comparison, drawn), noise_picture(comparison), heat_map(comparison), rank_plot(comparison)
    found: list[Picture] = [picture for picture in made if picture]
    try:
        views = [picture_view(picture) for picture in found]
        if folder:
            write_pictures(folder, found)
    except ImportError as error:
        return [], f"Install matplotlib for pictures, with  pip install -e '.[report]'  in the checkout ({error})."
    return views, ""


def _state(comparison: Comparison) -> tuple[str, str]:
    """Return how far a sweep is, in words, and as what it is coloured."""
    states = [run.state for run in comparison.runs]
    if FAILED in states:
        return f"{counted(states.count(FAILED), 'run')} failed", "stopped"
    return ("completed", "completed") if set(states) == {COMPLETED} else ("unfinished", "")


def headline(comparison: Comparison) -> str:
    """Say what was compared, how often, and what the tests support."""
    total, finished = len(comparison.runs), sum(run.state == COMPLETED for run in comparison.runs)
    several = len(comparison.settings) > 1
    where = f" in {counted(len(comparison.settings), 'setting')} ({', '.join(comparison.axes)})" if several else ""
    what = f"{counted(len(comparison.options), 'option')} of {comparison.design.compared}"
    done = "all finished" if finished == total else f"{finished} of them finished"
    first = f"{what}{where}, with {counted(len(comparison.seeds), 'seed')}: {counted(total, 'run')}, {done}."
    return " ".join([first, *comparison.findings])


def key_figures(comparison: Comparison, runs: Sequence[SweepRun]) -> list[View]:
    """Return the best mean, and the numbers of runs, their failures and their time."""
    figures, shown = Figures.of(comparison), list[tuple[str, str, str]]()
    for option, score in comparison.overall.items():
        if score.mark == BEST_MARK and score.mean is not None:
            value = f"{figures.value(score.mean)}{figures.unit}"
            shown.append(
                (f"Best {measure_title(comparison.measure).lower()}", value, f"{option}, mean of all settings")
            )
    finished = sum(run.state == COMPLETED for run in comparison.runs)
    shown.append(("Runs", str(finished), f"of {len(comparison.runs)} finished"))
    failed = sum(run.state == FAILED for run in comparison.runs)
    if failed:
        shown.append(("Failed", str(failed), "after one repetition"))
    tests = [run for run in runs if run.purpose == TUNING and run.place >= 0]
    if tests:
        shown.append(("Tuning", str(len(tests)), "runs on other seeds"))
    seconds = [run.cpu_seconds for run in (*comparison.runs, *tests) if run.cpu_seconds is not None]
    if seconds:
        shown.append(("CPU time", duration(sum(seconds)), "of all runs together"))
    return [{"name": name, "text": unbroken(text), "note": note} for name, text, note in shown]


def table_section(comparison: Comparison) -> View:
    """Return the table of options x settings, in the order of the mean ranks, with its marks and what they mean."""
    figures = Figures.of(comparison)
    rows = [
        {
            "option": option,
            "cells": [_cell(figures, comparison.cells.get((option, setting))) for setting in comparison.settings],
        }
        for option in by_rank(comparison)
    ]
    used = {mark for score in (*comparison.cells.values(), *comparison.overall.values()) for mark in _marks(score)}
    return {
        "titles": [comparison.title(setting) for setting in comparison.settings],
        "rows": rows,
        "legend": [(SYMBOLS[mark], text) for mark, text in _meanings(comparison).items() if mark in used],
    }


def _meanings(comparison: Comparison) -> dict[str, str]:
    return {
        BEST_MARK: "best mean",
        NOT_WORSE: "not significantly worse than the best",
        BETTER: f"significantly better than {comparison.baseline}",
        WORSE: f"significantly worse than {comparison.baseline}",
    }


def _cell(figures: Figures, score: Score | None) -> View:
    if score is None or score.mean is None:
        return {"text": NONE, "spread": "", "marks": [], "symbols": "", "best": False}
    marks = _marks(score)
    return {
        "text": figures.value(score.mean),
        "spread": "" if score.deviation is None else f"± {figures.value(score.deviation)}",
        "marks": marks,
        "symbols": "".join(SYMBOLS[mark] for mark in marks),
        "best": score.mark == BEST_MARK,
    }


def _marks(score: Score) -> list[str]:
    base = score.against_baseline
    return [mark for mark in (score.mark, base.verdict if base else "") if mark]


def overall_section(comparison: Comparison) -> View:
    """Return the rows of the table over all settings: means, ranks, and differences with what the tests say."""
    figures, best = Figures.of(comparison), _best(comparison)
    rows = []
    for option in by_rank(comparison):
        score = comparison.overall[option]
        stability = comparison.stability.get(option)
        rows.append(
            {
                "option": option,
                **_cell(figures, score),
                "rank": NONE if score.rank is None else f"{score.rank:.1f}",
                "first": "" if stability is None else f"{100 * stability.seeds_and_settings:.0f} %",
                "from_best": _difference(figures, score.against_best),
                "from_baseline": _difference(figures, score.against_baseline),
            }
        )
    return {"overall": rows, "best": best, "baseline": comparison.baseline, "unit": figures.unit.strip()}


def _best(comparison: Comparison) -> str:
    return next((option for option, score in comparison.overall.items() if score.mark == BEST_MARK), "")


def _difference(figures: Figures, found: Difference | None) -> View:
    """Return a difference with its interval and corrected p; nothing of an option from itself."""
    if found is None or found.mean is None:
        return {"text": "", "interval": "", "p": "", "verdict": ""}
    ends = [figures.difference(end) for end in found.interval or ()]
    return {
        "text": figures.difference(found.mean),
        "interval": f"{ends[0]} to {ends[1]}" if ends else "",
        "p": "" if found.adjusted is None else p_text(found.adjusted),
        "verdict": found.verdict,
    }
