"""Results of a run: of each measure the last value, that of the round that is best on validation data, and a mean.

Papers report the mean of the last ten rounds. All are shown at the end of a run and in its report, and kept in
``results.json`` of the run directory. No round is chosen by what was measured on test data.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from server_app.report.reading import RunRecord
from server_app.report.text import View, counted, measure_names, measure_title, measure_value, unbroken
from tasks.files import replace_file
from tasks.validation_split import VALIDATION, monitored

RESULTS = "results.json"
LAST_ROUNDS = 10
AT_CLIENTS = "clients_"
CHOSEN = ("train.precision", "train.engine")
"""Facts of versions.json that are kept with the results: what ``auto`` stood for."""
NO_MEASURES = (
    "selected",
    "replies",
    "quarantined",
    "learning_rate",
    "seconds",
    "epsilon",
    "clipping_norm",
)
"""What a line of metrics.jsonl holds beside measures of the model and of training."""


@dataclass(frozen=True)
class Result:
    """One measure of a run; ``at_best`` is its value after the round that is best on validation data.

    ``mean`` is that of the last ten evaluations after training began, ``rounds``, of fewer if there are no more. It is
    None if the measure is missing in one of them, as the loss of a model that has diverged.
    """

    name: str
    last: float | None
    at_best: float | None
    mean: float | None
    rounds: tuple[int, ...]


def results(record: RunRecord) -> list[Result]:
    """Return the measures that a run recorded of its model: on test data, on validation data, at the clients."""
    names = [name for name in measure_names(record) if name not in NO_MEASURES and not name.startswith("train_")]
    apart = [[name for name in names if name.startswith(prefix)] for prefix in (VALIDATION, AT_CLIENTS)]
    test = [name for name in names if not name.startswith((VALIDATION, AT_CLIENTS))]
    return [_result(record, name, group) for group in (test, *apart) for name in group]


def result(record: RunRecord, name: str) -> Result | None:
    """Return one measure of a run, None if it was not recorded."""
    return next((found for found in results(record) if found.name == name), None)


def _result(record: RunRecord, name: str, group: list[str]) -> Result:
    """Return the result of a measure; ``group`` are those that are recorded in the same rounds."""
    evaluated = [entry for entry in record.rounds if entry.number and any(one in entry.values for one in group)]
    last = evaluated[-LAST_ROUNDS:]
    values = [entry.values[name] for entry in last if name in entry.values]
    mean = fmean(values) if values and len(values) == len(last) else None
    return Result(name, record.final(name), record.at_best(name), mean, tuple(entry.number for entry in last))


def mean_of(rounds: tuple[int, ...]) -> str:
    """Say which rounds a mean is of.

    >>> mean_of((11, 12, 13)), mean_of((2, 4, 6)), mean_of((7,))
    ('mean of rounds 11 to 13', 'mean of the 3 evaluations in rounds 2 to 6', 'round 7 alone')
    """
    if len(rounds) < 2:
        return f"round {rounds[0]} alone" if rounds else "mean of no round"
    span = f"rounds {rounds[0]} to {rounds[-1]}"
    gaps = rounds[-1] - rounds[0] >= len(rounds)
    return f"mean of the {counted(len(rounds), 'evaluation')} in {span}" if gaps else f"mean of {span}"


def result_section(record: RunRecord) -> View:
    """Return the tables of results, those on test data apart from others, and the sentence about them."""
    found = results(record)
    fewer = "" if not found or len(found[0].rounds) == LAST_ROUNDS else " There are fewer here: it is that of all."
    note = f"{_choice(record)} The mean is that of the last ten evaluated rounds, which papers report.{fewer}"
    groups = [_group(record, found, prefix, title) for prefix, title in _groups(record)]
    return {"result_groups": [group for group in groups if group["rows"]], "results_note": note}


def _groups(record: RunRecord) -> list[tuple[str, str]]:
    """Return how the names of measures begin that are taken on the same data, and which data that is."""
    count = f": {counted(record.tested, 'example')}" if record.tested else ""
    return [
        ("", f"Clean test data{count}"),
        (VALIDATION, "Validation data, by which the best round is chosen"),
        (AT_CLIENTS, "At the clients, on their own examples with the labels that they were given"),
    ]


def _group(record: RunRecord, found: list[Result], prefix: str, title: str) -> View:
    others = tuple(one for one, _ in _groups(record) if one and one != prefix)
    own = [one for one in found if one.name.startswith(prefix) and not one.name.startswith(others)]
    heads, *rows = _table(record, own)
    plain = [one.name.removeprefix(prefix) for one in own]
    names = ["Loss (nats per example)" if name == "loss" else measure_title(name) for name in plain]
    return {
        "title": title,
        "heads": [head.capitalize() for head in heads[1:]],
        "rows": [[unbroken(text) for text in (name, *row[1:])] for name, row in zip(names, rows, strict=True)],
    }


def _choice(record: RunRecord) -> str:
    """Say how the best round was chosen, or why there is none."""
    if record.best_round is None:
        return "No round is called the best: there are no validation data to choose it by, and test data must not."
    chosen = measure_title(f"{VALIDATION}{monitored(str(record.config.get('run.monitor', 'accuracy')))}").lower()
    return (
        f"Round {record.best_round} is the best by {chosen}, of training examples that nobody trains on; the test data "
        "chose nothing, so what it says of that round does not flatter."
    )


def _table(record: RunRecord, found: list[Result]) -> list[tuple[str, ...]]:
    """Return the table of results with its headings; the values at the best round only where there is one."""
    best = () if record.best_round is None else (f"best on validation (round {record.best_round})",)
    rows = [("", "last", *best, _mean_title(found))]
    for one in found:
        values = (one.last, *((one.at_best,) if best else ()), one.mean)
        rows.append((measure_title(one.name), *(measure_value(one.name, value) for value in values)))
    return rows


def _mean_title(found: list[Result]) -> str:
    """Return the heading of the means; the clients may have evaluated in other rounds than the server."""
    spans = {one.rounds for one in found}
    return mean_of(spans.pop()) if len(spans) == 1 else "mean of the last ten"


def results_table(record: RunRecord) -> str:
    """Return the results as an aligned table for the terminal, empty if nothing was measured.

    Of the measures on validation data it has the loss, the accuracy and the one that chooses.
    """
    shown = {f"{VALIDATION}{name}" for name in ("loss", "accuracy", record.config.get("run.monitor", ""))}
    found = [one for one in results(record) if one.name in shown or not one.name.startswith(VALIDATION)]
    return aligned(_table(record, found)) if found else ""


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Join rows to lines: the first column starts at the left, all others end at the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_results(record: RunRecord) -> None:
    """Write ``results.json`` into the run directory.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    measures = {
        one.name: {
            "last": one.last,
            "at_best": one.at_best,
            "mean_of_last": one.mean,
            "mean_evaluations": len(one.rounds),
            "mean_from_round": one.rounds[0] if one.rounds else None,
        }
        for one in results(record)
    }
    chosen = {key: record.versions[key] for key in CHOSEN if key in record.versions}
    content = {"best_model_round": record.best_round, **chosen, "measures": measures}
    replace_file(record.path / RESULTS, (json.dumps(content, indent=2) + "\n").encode())
