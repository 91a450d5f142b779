"""Database of a sweep: one SQLite file with what is compared and, of every run, settings, state, metrics and durations.

Every change is one transaction, so a crash or a full disk leaves what was saved.
"""

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tasks.config import Flat
from tasks.setting_values import Value, value_text

FILE = "sweep.sqlite"
VERSION = 1
"""Of the tables below; it stands in the file."""
PENDING, RUNNING, COMPLETED, FAILED, STOPPED = "pending", "running", "completed", "failed", "stopped"
FINAL, TUNING, EARLIER = "final", "tuning", "earlier"
LAST, LAST_TEN, BEST = "last", "last-ten", "best"
SEED = "seed"

Series = Mapping[str, tuple[tuple[int, float], ...]]
"""Measures by name: (round, value) in order of the rounds."""

TABLES = """
CREATE TABLE design (content TEXT NOT NULL);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    place INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    point TEXT NOT NULL,
    settings TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    reason TEXT NOT NULL,
    folder TEXT NOT NULL,
    started TEXT NOT NULL,
    seconds REAL,
    cpu_seconds REAL,
    best_round INTEGER,
    versions TEXT NOT NULL
);
CREATE TABLE metrics (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    round INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (run, name, round)
) WITHOUT ROWID;
"""


def label(value: Value) -> str:
    """Return the name of an option that is only a value, as TOML writes it; texts are their own.

    >>> label(True), label(0.1), label("ce"), label("")
    ('true', '0.1', 'ce', '(empty)')
    """
    return value_text(value) or "(empty)"


def holds_sweep(folder: Path) -> bool:
    """Tell whether a folder is that of a sweep; one that cannot be looked into is none."""
    return os.path.isfile(folder / FILE)  # unlike Path.is_file false for a name that is too long


class SweepError(RuntimeError):
    """A sweep's folder or database that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class SweepDesign:
    """What a sweep compares, and how its results are read.

    Attributes
    ----------
    axes
        The options of each axis by name, in the order of the file; the axis ``seed`` holds the repetitions.
    compared
        The axis whose options are compared, such as ``method``; all others but ``seed`` make up a setting.
    baseline
        The option of it with which each other one is compared; empty = none.
    measure
        The measure on test data, such as ``accuracy``.
    summary
        What counts of a run's measures: ``last`` round, mean of the ``last-ten`` evaluated rounds, or of the round that
        is ``best`` on validation data. Chosen once, the same for all runs.
    tuning
        What was tuned: the options tried by key, how one is chosen (``mean`` or ``worst`` over settings), which seeds.
    """

    name: str
    axes: Mapping[str, tuple[str, ...]]
    compared: str
    baseline: str = ""
    measure: str = "accuracy"
    summary: str = LAST_TEN
    note: str = ""
    tags: tuple[str, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes
    ----------
    key
        Digest of all that decides its numbers: settings, code and data.
    place
        Its place in the sweep, from 0 on.
    point
        The option chosen on each axis, among them ``seed``; of tuning runs also the tried values by key.
    settings
        All settings that differ from the defaults.
    purpose
        ``final``, ``tuning`` for a run that only chooses settings, or ``earlier`` for one that is no longer part of the
        sweep, because its file or the code has changed since.
    reason
        Why it failed or ended early.
    folder
        Its run directory, relative to the sweep's folder; empty until it has one.
    started
        ISO 8601; empty until then. ``seconds`` and ``cpu_seconds`` are those of all its rounds and its start.
    best_round
        The round that is best on validation data, if there is one.
    """

    key: str
    place: int
    point: Mapping[str, str]
    settings: Flat
    purpose: str = FINAL
    state: str = PENDING
    attempts: int = 0
    reason: str = ""
    folder: str = ""
    started: str = ""
    seconds: float | None = None
    cpu_seconds: float | None = None
    best_round: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    series: Series = field(default_factory=dict)


COLUMNS = tuple(item.name for item in fields(SweepRun) if item.name != "series")
JSON_COLUMNS = ("point", "settings", "versions")


class SweepDatabase:
    """The file at ``folder / sweep.sqlite``.

    Raises
    ------
    SweepError
        If there is none (unless a ``design`` is given, for a new one), or it is of another version.
    """

    def __init__(self, folder: Path, design: SweepDesign | None = None) -> None:
        self.path = folder / FILE
        if design is None and not holds_sweep(folder):
            raise SweepError(f"no sweep in {folder.absolute()}: it has no file {FILE}; name the folder of a sweep")
        with self._explained():
            self._file = sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
            self._file.execute("PRAGMA foreign_keys = ON")
            found = int(self._file.execute("PRAGMA user_version").fetchone()[0])
            is_new = found == 0 and not self._file.execute("SELECT 1 FROM sqlite_master").fetchone()
            if is_new and design is not None:
                self._file.executescript(f"BEGIN;{TABLES}PRAGMA user_version = {VERSION};COMMIT")
            elif found != VERSION:
                what = "another program's file" if found == 0 else f"results of format {found}"
                raise SweepError(f"{self.path}: {what}, this version reads format {VERSION}; choose another folder")
            if design is not None:
                self.write_design(design)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def design(self) -> SweepDesign:
        """Return what is compared."""
        with self._explained():
            content = json.loads(self._file.execute("SELECT content FROM design").fetchone()[0])
        axes = {name: tuple(options) for name, options in content.pop("axes").items()}
        return SweepDesign(axes=axes, tags=tuple(content.pop("tags")), **content)

    def write_design(self, design: SweepDesign) -> None:
        """Replace what is compared."""
        with self._changes() as file:
            file.execute("DELETE FROM design")
            file.execute("INSERT INTO design VALUES (?)", [json.dumps(asdict(design))])

    def add(self, runs: Iterable[SweepRun]) -> None:
        """Add runs whose keys are new; of known ones only place, point and purpose are taken."""
        names, marks = ", ".join(COLUMNS), ", ".join("?" for _ in COLUMNS)
        kept = "place = excluded.place, point = excluded.point, purpose = excluded.purpose"
        lines = [[_to_column(name, getattr(run, name)) for name in COLUMNS] for run in runs]
        with self._changes() as file:
            file.executemany(
                f"INSERT INTO runs ({names}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET {kept}", lines
            )

    def update(self, key: str, series: Series | None = None, **changes: Any) -> None:
        """Change some fields of a run; ``series`` replaces its measures."""
        with self._changes() as file:
            (run,) = file.execute("SELECT id FROM runs WHERE key = ?", [key]).fetchone()
            for name, value in changes.items():
                file.execute(f"UPDATE runs SET {name} = ? WHERE id = ?", [_to_column(name, value), run])
            if series is not None:
                file.execute("DELETE FROM metrics WHERE run = ?", [run])
                lines = ((run, name, number, value) for name, points in series.items() for number, value in points)
                file.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?)", lines)

    def interrupt(self) -> None:
        """Let all runs wait again that are being played: what has ended by now stays as it is."""
        with self._changes() as file:
            file.execute("UPDATE runs SET state = ?, attempts = 0 WHERE state = ?", [PENDING, RUNNING])

    def runs(self, with_series: bool = True) -> list[SweepRun]:
        """Return all runs in their order, those of earlier designs too; without series they are read faster."""
        with self._explained():
            rows = self._file.execute(f"SELECT id, {', '.join(COLUMNS)} FROM runs ORDER BY place, id").fetchall()
            series = self._series() if with_series else {}
        return [_from_row(row[1:], series.get(row[0], {})) for row in rows]

    def _series(self) -> dict[int, dict[str, tuple[tuple[int, float], ...]]]:
        found: dict[int, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
        for run, name, number, value in self._file.execute("SELECT run, name, round, value FROM metrics"):
            found[run][name].append((number, value))
        return {run: {name: tuple(points) for name, points in own.items()} for run, own in found.items()}

    @contextmanager
    def _changes(self) -> Iterator[sqlite3.Connection]:
        """Make the block's changes one transaction."""
        with self._explained():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield self._file
                self._file.execute("COMMIT")
            except BaseException:
                if self._file.in_transaction:
                    self._file.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            hint = "free some room and continue" if "full" in str(error) else "restore it, or choose another folder"
            raise SweepError(f"{self.path}: {error}; {hint}") from error


def _to_column(name: str, value: Any) -> Any:
    return json.dumps(value, sort_keys=name == "settings") if name in JSON_COLUMNS else value


def _from_row(row: Iterable[Any], series: Series) -> SweepRun:
    values = dict(zip(COLUMNS, row, strict=True))
    read = {name: json.loads(value) if name in JSON_COLUMNS else value for name, value in values.items()}
    return SweepRun(**read, series=series)
