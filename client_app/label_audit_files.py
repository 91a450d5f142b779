"""Label audit files: the list of labels, and its summary, in the client's own folder.

A spreadsheet takes a text that begins with =, +, - or @ for a formula, and file names may come from anybody. In CSV an
apostrophe is put before such a text, and before one that begins with an apostrophe, so that reading gives names back.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from client_app.label_audit_report import MOST, REPORT, audit_report, audit_warnings, judge_in_words
from client_app.label_quality import CAUTION, Audit
from tasks.base import DataError
from tasks.client_data import data_root
from tasks.files import private_folder, replace_file
from tasks.settings import TaskSettings

STEM = "label-audit"
SUMMARY = f"{STEM}-summary.json"
COLUMNS = ("id", "given", "suggested", "confidence", "suspicion", "changed", "changed_to", "rank", "look")
READ = COLUMNS[:-2]
"""Columns that a list of any version begins with."""
RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
Columns = dict[str, list[Any]]


def format_problem(wanted: str) -> str:
    """Return what is missing to write lists in this format, or an empty text."""
    if wanted == "parquet" and find_spec("pyarrow") is None:
        return "audit.format = 'parquet': the package pyarrow is not installed; pip install -e '.[parquet]'"
    return ""


def list_path(folder: Path, wanted: str) -> Path:
    """Return where a client's list is, in the format ``csv`` or ``parquet``."""
    return folder / f"{STEM}.{wanted}"


def write_audit(folder: Path, audit: Audit, class_names: Sequence[str], wanted: str, facts: dict[str, Any]) -> Path:
    """Write a client's list, summary and report, for this user alone, and return the list's path.

    A crash leaves old files or new ones.

    Raises
    ------
    ValueError
        If the format needs a package that is not installed.
    WriteError
        If a file cannot be written.
    """
    content = list_bytes(_columns(audit, class_names), wanted)
    private_folder(folder)
    path = list_path(folder, wanted)
    replace_file(path, content, private=True)
    write_summary(folder, {**facts, **summarize(audit, class_names)})
    report = audit_report(audit, class_names, path.name, judge_in_words(facts))
    replace_file(folder / REPORT, _encode(report), private=True)
    return path


def task_facts(settings: TaskSettings) -> dict[str, str]:
    """Return which task the examples of an audit belong to and where they lie, by which they are found again."""
    return {
        "name": settings.name,
        "args": settings.args,
        "data-path": str(data_root(settings.data_path).absolute()),
        "bad-data": settings.bad_data,
    }


def write_summary(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the summary of an audit, for this user alone.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    summary = json.dumps(content, indent=2, ensure_ascii=False)
    replace_file(folder / SUMMARY, _encode(f"{summary}\n"), private=True)


def summarize(audit: Audit, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the summary of an audit as plain values: only the pairs of labels and the classes that occur."""
    known, estimate = np.isfinite(audit.thresholds).tolist(), audit.estimate
    return {
        "warnings": audit_warnings(audit, class_names),
        "examples": len(audit),
        "estimated_noise_rate": round(estimate.rate, 4),
        "noise_rate_interval_90": [round(estimate.low, 4), round(estimate.high, 4)],
        "estimated_by_confident_joint": round(audit.joint_noise_rate, 4),
        "model_seems_right_on": round(estimate.accuracy, 4),
        **({"held_out": asdict(audit.unseen)} if audit.unseen else {}),
        "look_at_first": audit.doubted,
        "suggestions": audit.suggestions,
        "lines_with_80_percent_of_the_wrong_labels": audit.lines_to_find(MOST),
        "changed_by_the_method": int(audit.changed.sum()),
        "classes": {
            class_names[k]: {"examples": count, "expected_wrong": round(expected, 1), "look_at_first": doubted}
            for k, count, expected, doubted in audit.by_class()
        },
        "given_to_suggested": {
            f"{class_names[given]} -> {class_names[suggested]}": count for given, suggested, count in audit.confusion()
        },
        "confidence_thresholds": {
            name: round(float(audit.thresholds[k]), 4) for k, name in enumerate(class_names) if known[k]
        },
        "caution": CAUTION,
    }


def warnings_of(folder: Path) -> list[str]:
    """Return what the reader of the audit in ``folder`` is warned of; nothing of one on masks or of older versions."""
    path = folder / SUMMARY
    found = json.loads(path.read_text(encoding="utf-8")).get("warnings", []) if path.is_file() else []
    return [str(text) for text in found]


def read_columns(path: Path) -> Columns:
    """Return a list's columns by name, as they were before writing.

    Raises
    ------
    DataError
        If the file is not such a list.
    """
    texts, numbers = ("id", "given", "suggested", "changed_to"), ("confidence", "suspicion")
    found = read_list(path, READ, texts, numbers, ("changed",), later=("look",))
    before = [given != other for given, other in zip(found["given"], found["suggested"], strict=True)]
    return {**found, "look": found.get("look", before)}


def read_list(
    path: Path,
    columns: Sequence[str],
    texts: Sequence[str],
    numbers: Sequence[str],
    flags: Sequence[str],
    later: Sequence[str] = (),
) -> Columns:
    """Return those columns of a list that are texts, numbers or flags, by name, as they were before writing.

    Flags that came ``later`` are those that a list of an earlier version has not.

    Raises
    ------
    DataError
        If the file does not begin with these ``columns``.
    """
    if path.suffix == ".parquet":
        from pyarrow import parquet

        known = parquet.read_schema(path).names
        wanted = [*texts, *numbers, *flags, *(name for name in later if name in known)]
        return dict(parquet.read_table(path, columns=wanted).to_pydict())
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or tuple(rows[0])[: len(columns)] != tuple(columns):
        raise DataError(f"{path}: expected the columns {', '.join(columns)}")
    return {
        **{name: [plain_cell(row[name]) for row in rows] for name in texts},
        **{name: [float(row[name]) for row in rows] for name in numbers},
        **{name: [row[name] == "true" for row in rows] for name in (*flags, *later) if name in rows[0]},
    }


def list_bytes(columns: Columns, wanted: str) -> bytes:
    """Return a list as a file in the format ``csv`` or ``parquet``.

    Raises
    ------
    ValueError
        If the format needs a package that is not installed.
    """
    problem = format_problem(wanted)
    if problem:
        raise ValueError(problem)
    return _csv(columns) if wanted == "csv" else _parquet(columns)


def _columns(audit: Audit, class_names: Sequence[str]) -> Columns:
    return {
        "id": list(audit.names),
        "given": [class_names[label] for label in audit.given],
        "suggested": [class_names[label] for label in audit.suggested],
        "confidence": np.round(audit.confidence, 4).tolist(),
        "suspicion": np.round(audit.suspicion, 4).tolist(),
        "changed": audit.changed.tolist(),
        "changed_to": [class_names[k] if other else "" for k, other in zip(audit.trained, audit.changed, strict=True)],
        "rank": list(range(1, len(audit) + 1)),
        "look": audit.look.tolist(),
    }


def _csv(columns: Columns) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*([csv_cell(value) for value in values] for values in columns.values()), strict=True))
    return _encode(text.getvalue())


def csv_cell(value: object) -> str:
    """Return a value as a cell of CSV that no spreadsheet takes for a formula."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4f}"
    text = str(value)
    return f"'{text}" if text.startswith(RISKY) else text


def plain_cell(cell: str) -> str:
    """Return what :func:`csv_cell` was given."""
    return cell.removeprefix("'")


def _parquet(columns: Columns) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), sink)
    return bytes(sink.getvalue())


def _encode(text: str) -> bytes:
    """Return UTF-8; a file name need not be valid text."""
    return text.encode(errors="backslashreplace")
