"""Table of a sweep's tuning: what was tried for each option at which cost, and what was chosen on validation data."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from server_app.report.reading import lower_is_better
from server_app.report.text import counted, is_share
from server_app.sweep.database import SweepDesign, label
from tasks.validation_split import VALIDATION

CHOSEN = "*"
WAYS = {
    "mean": "by the mean over the settings",
    "worst": "by the worst setting",
    "each": "for each setting by itself",
}
FAILED = "failed"
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?")


def tuning_note(design: SweepDesign) -> str:
    """Return what was tried, the budget of each option, and how one was chosen; empty without tuning."""
    record = design.tuning
    if not record.get("keys"):
        return ""
    tried = " x ".join(f"{counted(len(values), 'value')} of {key}" for key, values in record["keys"].items())
    seeds = record["seeds"]
    where = "; ".join(f"{axis} {', '.join(options)}" for axis, options in record.get("only", {}).items())
    place = f" in the settings with {where}" if where else " in every setting"
    how = WAYS.get(record["choose"], record["choose"])
    chosen = f"chosen on validation data, {how}" if "chosen" in record else "nothing is chosen yet"
    cost = f"seed {', '.join(map(str, seeds))}{_budget(design, record)}"
    return f"Tuned: {tried}{place}, {cost}; {chosen}.{_at_edges(record)}"


def _budget(design: SweepDesign, record: Mapping[str, Any]) -> str:
    """Say how many runs the tuning of an option took."""
    runs = sorted(set(record.get("budget", {}).values()))
    if not runs:
        return ""
    if len(runs) == 1:
        return f": {counted(runs[0], 'run')} for each {design.compared}"
    each = ", ".join(f"{option} {count}" for option, count in record["budget"].items())
    return f": {runs[0]} to {runs[-1]} runs for a {design.compared} ({each}), because not all are run in every setting"


def _at_edges(record: Mapping[str, Any]) -> str:
    """Say for which options a value at the end of what was tried was chosen, because a better one may lie beyond."""
    words = []
    for key, values in record["keys"].items():
        numbers = [float(value) for value in values if NUMBER.fullmatch(value)]
        if len(numbers) == len(values) > 1:
            ends = {min(numbers), max(numbers)}
            chosen = {group: own[key] for group, own in record.get("chosen", {}).items() if key in own}
            at_end = [group for group, value in chosen.items() if float(value) in ends]
            words += [f"{key} of {', '.join(at_end)}"] if at_end else []
    return (
        f" Chosen at an end of the values tried, so a better one may lie beyond: {'; '.join(words)}." if words else ""
    )


def tuning_rows(design: SweepDesign) -> list[tuple[str, ...]]:
    """Return a heading and a row for each option with its score for each combination of values; empty before the end.

    The chosen one has a star. Shares are percentages; a combination of which a run failed is not chosen.
    """
    record = design.tuning
    scores: Mapping[str, Mapping[str, float | None]] = record.get("scores", {})
    if not scores or "chosen" not in record:
        return []
    measure = str(record.get("measure", design.measure))
    combinations = list(dict.fromkeys(values for found in scores.values() for values in found))
    head = (design.compared, *combinations)
    return [head, *(_row(group, found, combinations, record, measure) for group, found in scores.items())]


def _row(
    group: str,
    found: Mapping[str, float | None],
    combinations: Sequence[str],
    record: Mapping[str, Any],
    measure: str,
) -> tuple[str, ...]:
    own = record["chosen"].get(group, {})
    chosen = " | ".join(label(own[key]) for key in record["keys"] if key in own)
    texts = [_score(found.get(values), measure) for values in combinations]
    marks = [CHOSEN if values == chosen else " " for values in combinations]
    return (group, *(f"{text} {mark}" for text, mark in zip(texts, marks, strict=True)))


def _score(score: float | None, measure: str) -> str:
    """Write a score, which is higher where it is better, as the measure's value."""
    if score is None:
        return FAILED
    name = measure.removeprefix(VALIDATION)
    value = -score if lower_is_better(name) else score
    return f"{100 * value:.1f}" if is_share(name) else f"{value:.3f}"
