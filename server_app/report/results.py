"""Results of a run: the last value of each measure, the best one, and the mean of the last ten rounds.

Papers report the mean of the last ten. All are shown at the end of a run and in its report, and kept in
``results.json`` of the run directory.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from server_app.report.reading import RunRecord
from server_app.report.text import NONE, View, counted, measure_names, measure_title, measure_value, unbroken
from tasks.files import replace_file

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
    """One measure of a run; ``best`` is (round, value), by :func:`lower_is_better`.

    ``mean`` is that of the last ten evaluations after training began, ``rounds``, of fewer if there are no more. It is
    None if the measure is missing in one of them, as the loss of a model that has diverged.
    """

    name: str
    last: float | None
    best: tuple[int, float] | None
    mean: float | None
    rounds: tuple[int, ...]


def results(record: RunRecord) -> list[Result]:
    """Return the measures that a run recorded of its model, those at the server before those at the clients."""
    names = [name for name in measure_names(record) if name not in NO_MEASURES and not name.startswith("train_")]
    server = [name for name in names if not name.startswith(AT_CLIENTS)]
    clients = [name for name in names if name.startswith(AT_CLIENTS)]
    return [_result(record, name, group) for group in (server, clients) for name in group]


def result(record: RunRecord, name: str) -> Result | None:
    """Return one measure of a run, None if it was not recorded."""
    return next((found for found in results(record) if found.name == name), None)


def _result(record: RunRecord, name: str, group: list[str]) -> Result:
    """Return the result of a measure; ``group`` are those that are recorded in the same rounds."""
    evaluated = [entry for entry in record.rounds if entry.number and any(one in entry.values for one in group)]
    last = evaluated[-LAST_ROUNDS:]
    values = [entry.values[name] for entry in last if name in entry.values]
    mean = fmean(values) if values and len(values) == len(last) else None
    return Result(name, record.final(name), record.best(name), mean, tuple(entry.number for entry in last))


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
    """Return the rows of the table of results and the sentence about it."""
    found = results(record)
    rows = [[unbroken(text) for text in _texts(one)] for one in found]
    chosen = record.config.get("run.monitor", "accuracy")
    model = "" if record.best_round is None else f" The best model is that of round {record.best_round}, by {chosen}."
    fewer = "" if not found or len(found[0].rounds) == LAST_ROUNDS else " There are fewer here: it is that of all."
    note = (
        "Best: of each measure by itself, the highest value, or the lowest of a loss, the calibration error and the "
        "backdoor success; it was chosen on the test data, so it flatters. The mean is that of the last ten evaluated "
        f"rounds, which papers report.{fewer}{model}"
    )
    return {"results": rows, "results_mean": _mean_title(found), "results_note": note}


def _mean_title(found: list[Result]) -> str:
    """Return the heading of the means; the clients may have evaluated in other rounds than the server."""
    spans = {one.rounds for one in found}
    return mean_of(spans.pop()) if len(spans) == 1 else "mean of the last ten"


def _texts(one: Result) -> tuple[str, str, str, str]:
    best = NONE if one.best is None else f"{measure_value(one.name, one.best[1])} ({one.best[0]})"
    return measure_title(one.name), measure_value(one.name, one.last), best, measure_value(one.name, one.mean)


def results_table(record: RunRecord) -> str:
    """Return the results as an aligned table for the terminal, empty if nothing was measured."""
    found = results(record)
    if not found:
        return ""
    rows = [("", "last", "best (round)", _mean_title(found)), *map(_texts, found)]
    return aligned(rows)


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
            "best": one.best and one.best[1],
            "best_round": one.best and one.best[0],
            "mean_of_last": one.mean,
            "mean_evaluations": len(one.rounds),
            "mean_from_round": one.rounds[0] if one.rounds else None,
        }
        for one in results(record)
    }
    chosen = {key: record.versions[key] for key in CHOSEN if key in record.versions}
    content = {"best_model_round": record.best_round, **chosen, "measures": measures}
    replace_file(record.path / RESULTS, (json.dumps(content, indent=2) + "\n").encode())
