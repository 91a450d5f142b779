"""Experiment tracking: what all trackers have in common, and what one of your own overrides.

A :class:`Tracker` is told a run's settings, the measures of each round, and at its end how it ended and which files it
leaves: report, model card, weights. The runs of a sweep are one group. Those of Winnow are in ``trackers.py``.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import ERROR, WARNING
from pathlib import Path
from typing import Any

from flwr.common.logger import log

from server_app.callbacks.base import Callback
from server_app.report.reading import read_run
from server_app.state import RunState
from server_app.storage.run_directory import RunDirectory
from tasks.config import to_flat
from tasks.plugins import explain
from tasks.setting_values import Value

FILES = ("report.html", "config.toml", "results.json", "versions.json")
MODEL = "model"
"""Folder of the run directory with what a tracker keeps of the model: weights, manifest, card."""
COMPLETED = "completed"


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers know it.

    Attributes
    ----------
    key
        Short text that is the same whenever this run goes on, and no other run has.
    name, group
        Of the run, and of the sweep or the variants that it belongs to; the latter may be empty.
    parameters
        All of its settings by key.
    """

    key: str
    name: str
    group: str
    tags: tuple[str, ...]
    note: str
    parameters: Mapping[str, Value]
    directory: RunDirectory
    resumed: bool


class Tracker(Callback):
    """Override the three methods below. A tracker that fails in the middle of a run does not end it.

    What could not be sent is sent with the next round; what is never sent is said at the end.

    Parameters
    ----------
    artefacts
        Whether report, model card and weights are handed over too.
    """

    def __init__(self, artefacts: bool = True) -> None:
        self._artefacts = artefacts
        self._tracked: TrackedRun | None = None
        self._unsent: list[tuple[int, dict[str, float]]] = []

    def open(self, run: TrackedRun) -> None:
        """Begin, or go on with, the record of a run. What this raises ends the run before its first round."""
        raise NotImplementedError

    def log_measures(self, server_round: int, measures: Mapping[str, float]) -> None:
        """Record the finite measures of a round; round 0 is the initial model."""
        raise NotImplementedError

    def close(self, status: str, files: Sequence[Path]) -> None:
        """End the record; ``status`` is completed, stopped or failed, ``files`` are what is to be kept with it."""
        raise NotImplementedError

    def on_run_start(self, state: RunState) -> None:
        """Open the record."""
        tracked = tracked_run(state)
        self.open(tracked)
        self._tracked = tracked

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Record the round, and what could not be recorded before."""
        numbers = {name: value for name, value in metrics.items() if name != "round" and _is_measure(value)}
        self._unsent.append((state.server_round, numbers))
        try:
            self._send()
        except Exception as error:  # a server that is away, in whatever way its client says so
            log(WARNING, "%s: round %d is not recorded yet: %s", _title(self), state.server_round, explain(error))
        return ""

    def on_run_closed(self, directory: RunDirectory) -> None:
        """Send what is left and end the record; a failure is logged, because the run has ended as it has."""
        if self._tracked is None:
            return
        try:
            self._send()
            status = str(directory.status().get("status", ""))
            self.close(status, artefacts(directory, status) if self._artefacts else [])
        except Exception as error:
            lost = f", and {len(self._unsent)} rounds are not in it" if self._unsent else ""
            log(ERROR, "%s: the record of %s is not closed%s: %s", _title(self), directory.path, lost, explain(error))

    def _send(self) -> None:
        while self._unsent:
            self.log_measures(*self._unsent[0])
            self._unsent.pop(0)


def tracked_run(state: RunState) -> TrackedRun:
    """Return a run as trackers know it."""
    from server_app.sweep.database import holds_sweep

    directory, settings = state.directory, state.settings
    status = directory.status()
    key = hashlib.sha256(f"{directory.path} {status.get('started')}".encode()).hexdigest()[:16]
    sweep = next((folder.name for folder in directory.path.parents[:3] if holds_sweep(folder)), "")
    return TrackedRun(
        key=key,
        name=directory.path.name,
        group=sweep or settings.run.name,
        tags=tuple(status.get("tags", ())),
        note=settings.run.note,
        parameters=to_flat(settings),
        directory=directory,
        resumed=state.resumed,
    )


def artefacts(directory: RunDirectory, status: str) -> list[Path]:
    """Return what there is of a run to keep: report, settings, results; of a completed one weights, manifest, card."""
    found = [directory.path / name for name in FILES if (directory.path / name).is_file()]
    checkpoints = directory.path / "checkpoints"
    if status != COMPLETED or not checkpoints.is_dir():
        return found
    from server_app.export.exporting import export_model
    from server_app.export.trained import open_model

    try:
        model, record = open_model(directory.path), read_run(directory.path)
        return [*found, *export_model(model, record, directory.path / MODEL, ["safetensors"])]
    except (ValueError, OSError) as error:  # no checkpoint, a part that is not there any more, a full disk
        log(WARNING, "The model of %s is not handed to trackers: %s", directory.path, error)
        return found


def _is_measure(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _title(tracker: Tracker) -> str:
    return type(tracker).__name__
