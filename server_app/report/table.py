"""Table of runs side by side, as plain text for the terminal."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from server_app.report.reading import RunRecord, read_run
from server_app.report.text import duration, measure_value, percent, points

HEADER = ("run", "rounds", "accuracy", "vs first", "best (round)", "macro-F1", "loss", "quarantined", "time")
LEGEND = (
    "accuracy, macro-F1 and loss: last evaluation on clean test data; "
    "vs first: accuracy minus that of the first run, in percentage points; time: all rounds"
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
    rows = [HEADER, *(_row(name, record, records[0]) for name, record in zip(names, records, strict=True))]
    return f"{_align(rows)}\n\n{LEGEND}"


def _names(records: list[RunRecord]) -> list[str]:
    """Return the label of each run, with its folder where several runs have the same label."""
    uses = Counter(record.label for record in records)
    return [record.label if uses[record.label] == 1 else f"{record.label} ({record.path.name})" for record in records]


def _row(name: str, record: RunRecord, first: RunRecord) -> tuple[str, ...]:
    accuracy, reference, best = record.final("accuracy"), first.final("accuracy"), record.best("accuracy")
    difference = None if record is first or accuracy is None or reference is None else accuracy - reference
    return (
        name,
        str(record.rounds_done) if record.status == "completed" else f"{record.rounds_done} ({record.status})",
        percent(accuracy),
        points(difference),
        f"{percent(best[1])} ({best[0]})" if best else percent(None),
        percent(record.final("macro-f1")),
        measure_value("loss", record.final("loss")),
        f"{record.total('quarantined'):.0f}",
        duration(record.total("seconds")),
    )


def _align(rows: list[tuple[str, ...]]) -> str:
    """Join rows to lines: the first column starts at the left, all others end at the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
