"""Table of runs side by side: results and differing settings, for the terminal, Markdown and other programs."""

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from server_app.report.reading import RunRecord, read_run
from server_app.report.results import result
from server_app.report.text import NONE, duration, measure_value, percent, points, single_line
from server_app.report.text_tables import blocks, csv_text, markdown
from tasks.config import DEFAULTS
from tasks.validation_split import VALIDATION

LEGEND = (
    "accuracy, macro-F1, {dice}loss: last evaluation on {data}; vs first: accuracy minus that of the first run, in "
    "percentage points; last ten: mean accuracy of the last ten evaluated rounds, of all if they are fewer; val. best: "
    "{kind} accuracy after the round that is best on validation data; per round: median time of a round, whatever the "
    "first one's warm-up took; time: all rounds, without the start of the clients"
)
UNTESTED = "validation data, as nobody has test data: with the labels as they are there, wrong ones too"
NOT_COMPARED = ("run.", "variants")
"""How settings begin that change nothing of what a run does."""
LONGEST_VALUE = 40
WIDEST, NARROWEST = 10**6, 40
ABSENT = "(not recorded)"


@dataclass(frozen=True)
class RunColumn:
    """A column of the table of runs: its heading, its key for programs, a run's value, and that as text."""

    title: str
    key: str
    value: Callable[[RunRecord, RunRecord], Any]
    text: Callable[[Any], str]


def comparison_table(run_dirs: Sequence[str | Path], width: int = WIDEST) -> str:
    """Return an aligned table with one line per run, in the given order, and the settings in which they differ.

    It is at most ``width`` characters wide where possible.

    Raises
    ------
    ReportError
        If one of the directories cannot be read.
    ValueError
        If there is none.
    """
    records = read_runs(run_dirs)
    parts = [blocks(result_rows(records), width), textwrap.fill(_legend(records), max(width, NARROWEST))]
    if settings := setting_rows(records):
        parts += ["Settings that differ:", blocks(settings, width)]
    elif len(records) > 1:
        parts.append("All settings are the same.")
    return "\n\n".join(parts)


def comparison_markdown(run_dirs: Sequence[str | Path]) -> str:
    """Return what :func:`comparison_table` does as Markdown."""
    records = read_runs(run_dirs)
    settings = setting_rows(records)
    return "\n\n".join(
        [markdown(result_rows(records)), _legend(records), *([markdown(settings)] if len(settings) > 1 else [])]
    )


def comparison_csv(run_dirs: Sequence[str | Path]) -> str:
    """Return a line for each run with plain numbers, shares in [0, 1] and seconds, then the settings that differ."""
    entries = _entries(read_runs(run_dirs))
    settings = list(entries[0]["settings"])
    names = [name for name in entries[0] if name != "settings"]
    rows = [[*(entry[name] for name in names), *(entry["settings"][key] for key in settings)] for entry in entries]
    return csv_text([[*names, *settings], *rows])


def comparison_json(run_dirs: Sequence[str | Path]) -> str:
    """Return a list of objects, one for each run, as in :func:`comparison_csv`; the settings are under one name."""
    return json.dumps(_entries(read_runs(run_dirs)), indent=2, ensure_ascii=False, default=str) + "\n"


def read_runs(run_dirs: Sequence[str | Path]) -> list[RunRecord]:
    """Read the runs to compare; see :func:`comparison_table` for what it raises."""
    if not run_dirs:
        raise ValueError("no runs to compare: give at least one run directory")
    return [read_run(run_dir) for run_dir in run_dirs]


def columns(records: Sequence[RunRecord]) -> list[RunColumn]:
    """Return the columns that there are for these runs; where none has test data they are of validation data."""
    data = VALIDATION if untested(records) else ""
    masks = any(record.series(f"{data}dice") for record in records)
    accuracy = f"{data}accuracy"

    def last(title: str, key: str, measure: str) -> RunColumn:
        show = partial(measure_value, measure)
        return RunColumn(title, f"{data}{key}", lambda run, _: run.final(f"{data}{measure}"), show)

    return [
        RunColumn("rounds", "rounds", lambda run, _: (run.rounds_done, run.status), _rounds_text),
        last("accuracy", "accuracy", "accuracy"),
        RunColumn("vs first", "versus_first", lambda run, first: _versus_first(run, first, accuracy), points),
        RunColumn("last ten", "last_ten", lambda run, _: _last_ten(run, accuracy), percent),
        RunColumn("val. best (round)", "best_on_validation", lambda run, _: _at_best(run, accuracy), _best_text),
        last("macro-F1", "macro_f1", "macro-f1"),
        *([last("Dice", "dice", "dice")] if masks else []),
        last("loss", "loss", "loss"),
        RunColumn("quarantined", "quarantined", lambda run, _: run.total("quarantined"), lambda value: f"{value:.0f}"),
        RunColumn("per round", "seconds_per_round", lambda run, _: run.usual_seconds(), _duration_text),
        RunColumn("time", "seconds", lambda run, _: run.total("seconds"), _duration_text),
    ]


def _rounds_text(value: tuple[int, str]) -> str:
    rounds, status = value
    return str(rounds) if status == "completed" else f"{rounds} ({status})"


def _duration_text(seconds: float | None) -> str:
    return NONE if seconds is None else duration(seconds)


def untested(records: Sequence[RunRecord]) -> bool:
    """Tell whether none of the runs has measured on test data, and one on validation data."""
    tested, validated = (any(run.series(f"{data}accuracy") for run in records) for data in ("", VALIDATION))
    return validated and not tested


def _versus_first(run: RunRecord, first: RunRecord, measure: str) -> float | None:
    accuracy, reference = run.final(measure), first.final(measure)
    return None if run is first or accuracy is None or reference is None else accuracy - reference


def _last_ten(run: RunRecord, measure: str) -> float | None:
    recent = result(run, measure)
    return recent.mean if recent else None


def _at_best(run: RunRecord, measure: str) -> tuple[float, int] | None:
    best = run.at_best(measure)
    return None if best is None or run.best_round is None else (best, run.best_round)


def _best_text(value: tuple[float, int] | None) -> str:
    return NONE if value is None else f"{percent(value[0])} ({value[1]})"


def result_rows(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """Return heading and a row for each run, as texts."""
    shown = columns(records)
    rows = [
        (name, *(column.text(column.value(record, records[0])) for column in shown))
        for name, record in zip(names_of(records), records, strict=True)
    ]
    return [("run", *(column.title for column in shown)), *rows]


def names_of(records: Sequence[RunRecord]) -> list[str]:
    """Return the label of each run, with its folder where several runs have the same label."""
    uses = Counter(record.label for record in records)
    return [record.label if uses[record.label] == 1 else f"{record.label} ({record.path.name})" for record in records]


def _legend(records: Sequence[RunRecord]) -> str:
    data, kind = (UNTESTED, "that") if untested(records) else ("clean test data", "test")
    dice = "Dice, " if any(column.title == "Dice" for column in columns(records)) else ""
    return LEGEND.format(dice=dice, data=data, kind=kind)


def differing_settings(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Return the value of each run by the settings in which they differ; one that a run does not know is None."""
    keys = [*DEFAULTS, *sorted({key for record in records for key in record.config} - DEFAULTS.keys())]
    compared = [key for key in keys if not key.startswith(NOT_COMPARED)]
    values = {key: [record.config.get(key) for record in records] for key in compared}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def setting_rows(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """Return heading and a row for each setting that differs, with a column for each run; nothing if none does."""
    rows = [(key, *map(_setting_text, values)) for key, values in differing_settings(records).items()]
    return [("setting", *names_of(records)), *rows] if rows else []


def _setting_text(value: Any) -> str:
    text = ABSENT if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return single_line(text, LONGEST_VALUE)


def _entries(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return what programs read of each run."""
    differing, shown = differing_settings(records), columns(records)
    found = []
    for place, (name, record) in enumerate(zip(names_of(records), records, strict=True)):
        values = {column.key: column.value(record, records[0]) for column in shown}
        best = values["best_on_validation"] or (None, None)
        entry = {
            "run": name,
            "path": str(record.path),
            "status": record.status,
            **values,
            "rounds": record.rounds_done,
            "best_on_validation": best[0],
            "best_round": best[1],
            "settings": {key: each[place] for key, each in differing.items()},
        }
        found.append(entry)
    return found
