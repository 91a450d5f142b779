"""Review of one client's label audit: its list of examples, the task they belong to, and the folder they lie in."""

import csv
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

from client_app.label_audit_files import STEM, SUMMARY, list_path, plain_cell
from client_app.label_audit_report import judge_in_words
from server_app.storage.run_directory import CONFIG
from tasks.base import DataError, Task
from tasks.client_data import load_task
from tasks.config import flatten, parse
from tasks.plugins import PluginError
from tasks.settings import TaskSettings

NEEDED = ("id", "suspicion")
SHOWN = ("given", "suggested", "confidence", "suspicion")
LOOK_COLUMN = "look"
LINES = "lines_with_80_percent_of_the_wrong_labels"


class ReviewError(ValueError):
    """An audit that cannot be reviewed, or decisions that cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Example:
    """One line of an audit's list.

    ``given`` and ``suggested`` are names of classes, empty where masks are listed. ``confidence`` is the probability of
    the suggested label, None where masks are listed. ``further`` has the other columns as texts.
    """

    name: str
    given: str
    suggested: str
    suspicion: float
    confidence: float | None
    doubted: bool
    further: Mapping[str, str]


@dataclass(frozen=True)
class LabelReview:
    """What is reviewed: the examples of an audit in its order, and where they come from.

    ``folder`` holds the audit. ``run``, ``client`` and ``round`` say which model made it, and ``judge`` says it in
    words where that is not the last one. ``reading`` is how many lines
    from the top are worth reading, at least those that are doubted, and ``warnings``
    and ``words`` are what the audit's own report says first: what to be wary of, and how many labels are wrong.
    """

    folder: Path
    examples: tuple[Example, ...]
    declared: TaskSettings
    run: str
    client: str
    round: str
    judge: str = ""
    reading: int = 0
    warnings: tuple[str, ...] = ()
    words: str = ""

    @property
    def of_masks(self) -> bool:
        """Whether masks are listed, and not labels."""
        return self.task.labels_pixels

    @cached_property
    def task(self) -> Task:
        """The task, on the examples as they are in the files: without the encoder that the run may have had.

        Raises
        ------
        ReviewError
            If it cannot be built.
        """
        try:
            return load_task(self.declared)
        except (DataError, PluginError) as error:
            raise ReviewError(f"the task of the audit in {self.folder} cannot be read: {error}") from error

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers."""
        return self.task.class_names

    @cached_property
    def by_name(self) -> dict[str, Example]:
        """The examples by their names."""
        return {example.name: example for example in self.examples}

    @property
    def model_version(self) -> str:
        """The model that made the audit, in words that annotation tools take."""
        return f"winnow {self.run} round {self.round}".strip()


def read_review(folder: Path, data: Path | None = None) -> LabelReview:
    """Read the audit in a client's folder; ``data`` is where its examples lie now, if that is elsewhere.

    Raises
    ------
    ReviewError
        If there is none, it is damaged, or does not say to which task it belongs.
    """
    summary = _summary(folder)
    declared = _declared(folder, summary)
    if data is not None:
        if not os.path.isdir(data):
            raise ReviewError(f"--data {data}: there is no such folder")
        declared = replace(declared, data_path=str(data.absolute()))
    rows = _rows(folder)
    facts = {key: str(summary.get(key, "")) for key in ("run", "client", "round")}
    facts |= {"round": str(summary.get("model_round", facts["round"])), "judge": judge_in_words(summary)}
    examples = tuple(_example(row, folder) for row in rows)
    warnings = summary.get("warnings")
    return LabelReview(
        folder,
        examples,
        declared,
        **facts,
        reading=_reading(summary, examples),
        warnings=tuple(str(text) for text in warnings) if isinstance(warnings, list) else (),
        words=_words(summary),
    )


def _reading(summary: Mapping[str, Any], examples: tuple[Example, ...]) -> int:
    """Return how many lines are worth reading: the doubted ones, and as many as the interval says may be wrong."""
    doubted = max((number for number, example in enumerate(examples, 1) if example.doubted), default=0)
    rates = _rates(summary)
    lines = summary.get(LINES)
    most = [lines if isinstance(lines, int) else 0, ceil(rates[2] * len(examples)) if rates else 0]
    return min(max(doubted, *most), len(examples))


def _words(summary: Mapping[str, Any]) -> str:
    """Return how many labels are wrong, as far as the summary says it; nothing of masks and of earlier versions."""
    rates = _rates(summary)
    if rates is None:
        return ""
    share, low, high = (f"{100 * rate:.0f}" for rate in rates)
    return f"About {share} % of these labels are wrong; with 90 % confidence between {low} and {high} %."


def _rates(summary: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Return the estimated share of wrong labels and both ends of its interval, None where they are not said."""
    rate, interval = summary.get("estimated_noise_rate"), summary.get("noise_rate_interval_90")
    try:
        share, low, high = (float(value) for value in (rate, *interval))  # type: ignore[misc]
    except (TypeError, ValueError):
        return None
    return share, low, high


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    if not os.path.isdir(folder):
        raise ReviewError(f"there is no folder {folder} that this user can enter")
    if not os.path.isfile(path):
        below = sorted({found.parent for found in folder.glob(f"**/{STEM}.*")})
        hint = f"; there is one in {below[0]}" if below else "; a run writes it where audit.enabled is true"
        raise ReviewError(f"{folder} holds no label audit ({SUMMARY}){hint}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("an object is expected")
    except (OSError, ValueError) as error:
        raise ReviewError(f"{path} cannot be read: {error}") from error
    return content


def _declared(folder: Path, summary: Mapping[str, Any]) -> TaskSettings:
    """Return the task as the audit says it, else as the run around the folder does."""
    facts = summary.get("task")
    if isinstance(facts, dict):
        texts = {key: str(facts.get(key, "")) for key in ("name", "args", "data-path", "bad-data")}
        return TaskSettings(texts["name"], texts["args"], texts["data-path"], texts["bad-data"] or "refuse")
    config = folder.parent.parent / CONFIG
    if os.path.isfile(config):  # a simulation of an earlier version
        try:
            declared = parse(flatten(tomllib.loads(config.read_text(encoding="utf-8")))).task
        except ValueError as error:
            raise ReviewError(f"{config} cannot be read: {error}") from error
        return replace(declared, encoder="", encoder_args="", cache_path="")
    raise ReviewError(f"the audit in {folder} does not say of which task it is: an earlier version made it; run again")


def _rows(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the list; of both formats the newer file."""
    paths = [path for wanted in ("csv", "parquet") if os.path.isfile(path := list_path(folder, wanted))]
    if not paths:
        raise ReviewError(f"{folder} holds the summary of a label audit, but no list {STEM}.csv")
    path = max(paths, key=lambda found: found.stat().st_mtime_ns)
    try:
        rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    except (OSError, ValueError, csv.Error) as error:
        raise ReviewError(f"{path} cannot be read: {error}") from error
    if missing := [name for name in NEEDED if rows and name not in rows[0]]:
        raise ReviewError(f"{path} has no column {missing[0]!r}; is it the list of an audit?")
    return rows


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: plain_cell(cell or "") for name, cell in row.items() if name is not None}
            for row in csv.DictReader(file)
        ]


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ReviewError(f"{path} needs the package pyarrow: pip install -e '.[parquet]'") from error
    return list(parquet.read_table(path).to_pylist())


def _example(row: Mapping[str, Any], folder: Path) -> Example:
    given, suggested = str(row.get("given", "")), str(row.get("suggested", ""))
    doubted = _flag(row[LOOK_COLUMN]) if LOOK_COLUMN in row else given != suggested
    further = {name: _text(cell) for name, cell in row.items() if name not in ("id", *SHOWN)}
    try:
        confidence = float(row["confidence"]) if row.get("confidence") not in (None, "") else None
        suspicion = float(row["suspicion"])
    except (TypeError, ValueError) as error:
        raise ReviewError(f"the list of the audit in {folder} holds {error} where a number is expected") from error
    return Example(str(row["id"]), given, suggested, suspicion, confidence, doubted, further)


def _flag(cell: object) -> bool:
    return cell is True or cell == "true"


def _text(cell: object) -> str:
    return str(cell).lower() if isinstance(cell, bool) else "" if cell is None else str(cell)
