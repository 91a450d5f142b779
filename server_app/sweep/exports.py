"""Files of a sweep's results for programs: CSV with a line for each run or cell, JSON, and Parquet with every measure.

Numbers are written in full; shares are not percentages. What is missing is empty, or null.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from server_app.sweep.database import BEST, LAST, LAST_TEN, SweepDesign, SweepRun
from server_app.sweep.results import Comparison, Difference, Score
from server_app.sweep.selection import chosen_on_validation, run_value

Line = dict[str, Any]
FACTS = ("state", "attempts", "started", "seconds", "cpu_seconds", "best_round", "folder", "key")
NO_PYARROW = "Parquet is written with pyarrow: pip install -e '.[parquet]'"


def runs_csv(found: Comparison) -> str:
    """Return a line for each run: its options, the measure under each summary, state, durations and folder."""
    return _csv([_run_line(found, run) for run in found.runs])


def _run_line(found: Comparison, run: SweepRun) -> Line:
    values = {name: run_value(run, found.measure, name)[0] for name in (LAST, LAST_TEN)}
    values[BEST] = run_value(run, found.measure, BEST)[0] if chosen_on_validation(run) else None
    summaries = {f"{found.measure}-{name}": value for name, value in values.items()}
    facts = {name: getattr(run, name) for name in FACTS}
    return {**run.point, **summaries, **facts, "reason": run.reason}


def cells_csv(found: Comparison) -> str:
    """Return a line for each option in each setting, and for each over all settings (the setting is then empty)."""
    return _csv([{**line, "seeds": len(line["seeds"])} for line in cell_lines(found)])


def cell_lines(found: Comparison) -> list[Line]:
    """Return each option in each setting, then over all settings, as flat values; ``seeds`` are those with a value."""
    inside = [
        _cell_line(found, option, dict(zip(found.axes, setting, strict=True)), score)
        for (option, setting), score in found.cells.items()
    ]
    nowhere = dict.fromkeys(found.axes, "")
    return inside + [_cell_line(found, option, nowhere, score) for option, score in found.overall.items()]


def _cell_line(found: Comparison, option: str, setting: Line, score: Score) -> Line:
    low, high = score.interval or (None, None)
    return {
        found.design.compared: option,
        **setting,
        "seeds": list(score.values),
        "mean": score.mean,
        "deviation": score.deviation,
        "low": low,
        "high": high,
        "rank": score.rank,
        "mark": score.mark,
        **_difference("best", score.against_best),
        **_difference("baseline", score.against_baseline),
    }


def _difference(whom: str, found: Difference | None) -> Line:
    """Return the difference from the best or the baseline, with p before and after Holm's correction."""
    names = ("pairs", "mean", "p", "adjusted", "verdict")
    return {f"{whom}_{name}": None if found is None else getattr(found, name) for name in names}


def _csv(lines: Sequence[Line]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def results_json(found: Comparison) -> str:
    """Return all results as JSON: design, cells with their values by seed, overall, findings, notes, missing runs."""
    content = {
        "design": asdict(found.design),
        "measure": found.measure,
        "summary": found.summary,
        "baseline": found.baseline,
        "lower_is_better": found.lower_is_better,
        "axes": found.axes,
        "seeds": found.seeds,
        "cells": [
            {found.design.compared: option, "setting": setting, **asdict(score)}
            for (option, setting), score in found.cells.items()
        ],
        "overall": {option: asdict(score) for option, score in found.overall.items()},
        "stability": {option: asdict(stability) for option, stability in found.stability.items()},
        "agreement": found.agreement,
        "families": asdict(found.families),
        "findings": found.findings,
        "notes": found.notes,
        "missing": [{**each.run.point, "why": each.why, "folder": each.run.folder} for each in found.missing],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def parquet(design: SweepDesign, runs: Sequence[SweepRun]) -> bytes:
    """Return a Parquet file with a line for each measure of each round of each run, tuning runs too.

    Its columns are the options by axis, ``measure``, ``round`` and ``value``, then the run's purpose, state, durations,
    settings and versions (JSON). A run without measures has one line with empty ones. The metadata holds the design.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        from pyarrow.parquet import write_table
    except ImportError as error:
        raise ImportError(NO_PYARROW) from error
    measured = [_measured(run) for run in runs]
    places = arrow.array(np.repeat(np.arange(len(runs)), [len(lines) for lines in measured]))  # each line's run
    kinds = {"measure": arrow.string(), "round": arrow.int32(), "value": arrow.float64()}
    columns = {
        name: arrow.array([line[place] for lines in measured for line in lines], kind)
        for place, (name, kind) in enumerate(kinds.items())
    }
    axes = dict.fromkeys([*design.axes, *(axis for run in runs for axis in run.point)])
    facts = {axis: ([run.point.get(axis) for run in runs], arrow.string()) for axis in axes}
    for name in ("purpose", "state", "reason", "folder", "key", "started"):
        facts[name] = ([str(getattr(run, name)) for run in runs], arrow.string())
    for name in ("settings", "versions"):
        facts[name] = ([json.dumps(getattr(run, name), sort_keys=True) for run in runs], arrow.string())
    for name, kind in (("seconds", arrow.float64()), ("cpu_seconds", arrow.float64()), ("best_round", arrow.int32())):
        facts[name] = ([getattr(run, name) for run in runs], kind)
    columns |= {name: arrow.array(values, kind).take(places) for name, (values, kind) in facts.items()}
    table = arrow.table(columns).replace_schema_metadata({"design": json.dumps(asdict(design))})
    buffer = arrow.BufferOutputStream()
    write_table(table, buffer)
    return bytes(buffer.getvalue())


def _measured(run: SweepRun) -> list[tuple[str | None, int | None, float | None]]:
    """Return (measure, round, value) of all that a run recorded; one empty line if that is nothing."""
    points = [(name, number, value) for name, series in run.series.items() for number, value in series]
    return [*points] or [(None, None, None)]
