"""Audited folders for tests: small data of every kind with a list as an audit writes it, some labels doubted."""

import csv
import json
from pathlib import Path

from client_app.label_audit_files import COLUMNS, SUMMARY, csv_cell
from server_app.label_review.review import LabelReview, read_review
from tasks.client_data import load_task
from tasks.own_data.base import OwnDataTask
from tasks.own_data.relabelling import given_labels
from tasks.settings import TaskSettings
from tests.site_data import ARGS, KINDS

DOUBTED, READING = 6, 9
SAID = {
    "warnings": ["The class '<b>' is much worse."],
    "estimated_noise_rate": 0.26,
    "noise_rate_interval_90": [0.18, 0.35],
    "lines_with_80_percent_of_the_wrong_labels": READING,
}
"""What the summary of an audit of labels says besides."""


def audited(folder: Path, kind: str = "image-folder", count: int = 24) -> Path:
    """Write data of a kind into ``folder/data`` and the audit of it into ``folder/audit``; return the latter.

    The first ``DOUBTED`` examples of the list are doubted: each other class is suggested.
    """
    data = KINDS[kind](folder / "data", count)
    settings = TaskSettings(kind, ARGS[kind], str(data))
    task = load_task(settings)
    assert isinstance(task, OwnDataTask)
    write_audit(folder / "audit", task, settings)
    return folder / "audit"


def write_audit(audit: Path, task: OwnDataTask, settings: TaskSettings) -> None:
    """Write list and summary of an audit of all examples of a task."""
    audit.mkdir()
    rows = []
    for rank, (name, label) in enumerate(sorted(given_labels(task).items(), key=lambda item: item[0][::-1])):
        other = (label + 1) % len(task.class_names) if rank < DOUBTED else label
        sure = 0.99 - rank / 100
        suspicion = sure if rank < DOUBTED else 1 - sure
        labels, look = (task.class_names[label], task.class_names[other]), rank < DOUBTED
        rows.append((name, *labels, sure, suspicion, False, "", rank + 1, look))
    columns = COLUMNS if not task.labels_pixels else ("id", "suspicion", "look", "doubted_pixels", "picture")
    if task.labels_pixels:
        rows = [(row[0], row[4], row[1] != row[2] or rank < DOUBTED, 9, "") for rank, row in enumerate(rows)]  # type: ignore[misc]
    with (audit / "label-audit.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *([csv_cell(cell) for cell in row] for row in rows)])
    facts = {"name": settings.name, "args": settings.args, "data-path": settings.data_path, "bad-data": "refuse"}
    said = {} if task.labels_pixels else SAID
    (audit / SUMMARY).write_text(json.dumps({"run": "pilot", "client": 0, "round": 5, "task": facts, **said}))


def review_of(folder: Path, kind: str = "image-folder") -> LabelReview:
    """Return the review of an audited folder made in ``folder``."""
    return read_review(audited(folder, kind))
