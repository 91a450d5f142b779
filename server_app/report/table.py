"""Table of runs side by side, as plain text for the terminal."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from server_app.report.reading import RunRecord, read_run
from server_app.report.results import aligned, result
from server_app.report.text import NONE, duration, measure_value, percent, points

COLUMNS = ("run", "rounds", "accuracy", "vs first", "last ten", "val. best (round)", "macro-F1")
MORE = ("loss", "quarantined", "per round", "time")
LEGEND = (
    "accuracy, macro-F1, {}loss: last evaluation on clean test data; vs first: accuracy minus that of the first run, "
    "in percentage points; last ten: mean accuracy of the last ten evaluated rounds, of all if they are fewer; "
    "val. best: test accuracy after the round that is best on validation data; per round: median time of a round, "
    "whatever the first one's warm-up took; time: all rounds, without the start of the clients"
)


def comparison_table(run_dirs: Sequence[str | Path]) -> str:
    """Return an aligned table with one line per run, in the given order.

    Raises
    ------
    ReportError
        If one of the directories cannot be read.
    ValueError
        If there is none.
    """
    if not run_dirs:
        raise ValueError("no runs to compare: give at least one run directory")
    records = [read_run(run_dir) for run_dir in run_dirs]
    names = _names(records)
    masks = any(record.series("dice") for record in records)
    header = (*COLUMNS, *(["Dice"] if masks else []), *MORE)
    rows = [header, *(_row(name, record, records[0], masks) for name, record in zip(names, records, strict=True))]
    return f"{aligned(rows)}\n\n{LEGEND.format('Dice, ' if masks else '')}"


def _names(records: list[RunRecord]) -> list[str]:
    """Return the label of each run, with its folder where several runs have the same label."""
    uses = Counter(record.label for record in records)
    return [record.label if uses[record.label] == 1 else f"{record.label} ({record.path.name})" for record in records]


def _row(name: str, record: RunRecord, first: RunRecord, masks: bool) -> tuple[str, ...]:
    accuracy, reference, best = record.final("accuracy"), first.final("accuracy"), record.at_best("accuracy")
    difference = None if record is first or accuracy is None or reference is None else accuracy - reference
    recent, usual = result(record, "accuracy"), record.usual_seconds()
    return (
        name,
        str(record.rounds_done) if record.status == "completed" else f"{record.rounds_done} ({record.status})",
        percent(accuracy),
        points(difference),
        percent(recent.mean if recent else None),
        NONE if best is None else f"{percent(best)} ({record.best_round})",
        percent(record.final("macro-f1")),
        *([percent(record.final("dice"))] if masks else []),
        measure_value("loss", record.final("loss")),
        f"{record.total('quarantined'):.0f}",
        NONE if usual is None else duration(usual),
        duration(record.total("seconds")),
    )
