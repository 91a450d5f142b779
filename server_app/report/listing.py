"""Listing of runs and sweeps below a folder, newest first, what is broken among them.

Of a run only status, settings and the end of its measures are read, so that a thousand take a second or two.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from server_app.report.files import ReportError, as_count, as_number, as_text, read_config, read_json
from server_app.storage.run_directory import CONFIG, METRICS, STATUS, tags_of
from server_app.sweep.database import (
    COMPLETED,
    FAILED,
    FILE,
    FINAL,
    RUNNING,
    SweepDatabase,
    SweepError,
    SweepRun,
    holds_sweep,
)
from tasks.config import DEFAULTS

RUN, SWEEP = "run", "sweep"
BROKEN, INTERRUPTED, UNFINISHED = "broken", "interrupted", "unfinished"
MEASURES = ("accuracy", "dice", "loss")
"""What is shown of a run, the first that it recorded on test data."""
TAIL_BYTES = 2**16


@dataclass(frozen=True)
class ListedRun:
    """A run or a sweep in a list.

    Attributes
    ----------
    kind
        ``run`` or ``sweep``.
    name, label
        The name that it was given, and how it is called with that of its variant; empty without.
    state
        As its status says; ``interrupted`` if that is running and nobody works on it, ``broken`` if a file cannot be
        read, with the ``problem``.
    done, planned
        Rounds of a run, runs of a sweep; None if unknown.
    measure, value
        The last value on test data.
    settings
        All settings of a run; of a sweep what its final runs share.
    axes
        Of a sweep: how many options each axis has, such as ``8 method x 4 noise x 5 seed``.
    started
        Seconds since the epoch.
    """

    path: Path
    kind: str
    name: str = ""
    label: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""
    state: str = ""
    done: int | None = None
    planned: int | None = None
    measure: str = ""
    value: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    axes: str = ""
    started: float = 0.0
    problem: str = ""


def list_runs(folder: Path) -> list[ListedRun]:
    """Return the runs and sweeps in a folder and below, newest first.

    The runs of a sweep are listed if ``folder`` is the sweep's or below it.
    """
    found = [_broken(path, RUN, str(problem)) if problem else listed(path) for path, problem in _places(folder)]
    return sorted(found, key=lambda entry: (entry.started, entry.path.name), reverse=True)


def _places(folder: Path) -> Iterator[tuple[Path, OSError | None]]:
    """Return each folder of a run or sweep, and those that cannot be looked into."""
    unread: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=unread.append):
        path, names = Path(place), set(files)
        if (FILE in names and path != folder) or (FILE not in names and _is_run(path, names)):
            folders.clear()
        else:
            folders[:] = [name for name in folders if not name.startswith(".")]
            if FILE not in names:
                continue
        yield path, None
    yield from ((Path(error.filename), error) for error in unread)


def _is_run(path: Path, files: set[str]) -> bool:
    """Tell whether a folder is a run's: by its status, or settings that are ours."""
    if STATUS in files:
        return True
    if CONFIG not in files:
        return False
    try:
        return bool(read_config(path).keys() & DEFAULTS.keys())
    except (ReportError, OSError):
        return METRICS in files


def listed(path: Path) -> ListedRun:
    """Return what a list says of the run or sweep in a folder, also if it is broken."""
    kind = SWEEP if holds_sweep(path) else RUN
    try:
        return _sweep(path) if kind == SWEEP else _run(path)
    except (ReportError, SweepError, OSError) as error:
        return _broken(path, kind, str(error))


def _broken(path: Path, kind: str, problem: str) -> ListedRun:
    return ListedRun(path, kind, path.name, state=BROKEN, problem=problem, started=_changed(path))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _run(path: Path) -> ListedRun:
    status, config = read_json(path / STATUS), read_config(path)
    last, measure, value = _last_measure(path / METRICS)
    tags = status.get("tags")
    return ListedRun(
        path=path,
        kind=RUN,
        name=as_text(status.get("name", config.get("run.name"))),
        label=as_text(status.get("label")),
        tags=tuple(map(str, tags)) if isinstance(tags, list) else tuple(tags_of(as_text(config.get("run.tags")))),
        note=as_text(status.get("note", config.get("run.note"))),
        state=_state(path, as_text(status.get("status"))),
        done=max(as_count(status.get("rounds_done")) or 0, last),
        planned=as_count(config.get("num-server-rounds")),
        measure=measure,
        value=value,
        settings=config,
        started=_seconds(as_text(status.get("started"))) or _changed(path),
    )


def _state(path: Path, recorded: str) -> str:
    """Return the state of a run; one that is recorded as running may have died with its machine."""
    if recorded != RUNNING:
        return recorded or UNFINISHED
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(
            folder, fcntl.LOCK_SH | fcntl.LOCK_NB
        )  # a ServerApp holds its run directory, see RunDirectory.claim
    except OSError:
        return RUNNING
    finally:
        os.close(folder)
    return INTERRUPTED


def _seconds(iso: str) -> float:
    try:
        return datetime.fromisoformat(iso).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _last_measure(path: Path) -> tuple[int, str, float | None]:
    """Return the last round that was recorded, and the measure and value of the last evaluation on test data."""
    number = 0
    for line in _last_lines(path):
        try:
            content = json.loads(line)
        except ValueError:
            continue  # a crash cut it off, or it began before the bytes that are read
        if not isinstance(content, dict):
            continue
        number = max(number, as_count(content.get("round")) or 0)
        for name in MEASURES:
            value = as_number(content.get(name))
            if value is not None:
                return number, name, value
    return number, "", None


def _last_lines(path: Path) -> Iterator[str]:
    """Return the last lines of a file, the last one first."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        yield from reversed(file.read().decode(errors="replace").splitlines())


def _sweep(path: Path) -> ListedRun:
    database = SweepDatabase(path)
    try:
        design, runs = database.design(), database.runs(with_series=False)
    finally:
        database.close()
    finals = [run for run in runs if run.purpose == FINAL and run.place >= 0]
    starts = [seconds for run in runs if (seconds := _seconds(run.started))]
    return ListedRun(
        path=path,
        kind=SWEEP,
        name=design.name,
        label=design.name,
        tags=design.tags,
        note=design.note,
        state=_sweep_state(finals),
        done=sum(run.state == COMPLETED for run in finals),
        planned=len(finals),
        settings=_shared(finals),
        axes=" x ".join(f"{len(options)} {axis}" for axis, options in design.axes.items()),
        started=min(starts, default=_changed(path)),
    )


def _sweep_state(runs: list[SweepRun]) -> str:
    states = {run.state for run in runs}
    if states == {COMPLETED}:
        return COMPLETED
    return FAILED if states and states <= {COMPLETED, FAILED} else UNFINISHED


def _shared(runs: list[SweepRun]) -> dict[str, Any]:
    """Return the settings that all runs have alike, the defaults among them."""
    changed = {key for run in runs for key in run.settings}
    first = {**DEFAULTS, **runs[0].settings} if runs else {}
    return {
        key: value
        for key, value in first.items()
        if key not in changed or all(run.settings.get(key, DEFAULTS.get(key)) == value for run in runs)
    }
