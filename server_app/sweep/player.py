"""Player of a sweep's runs: a process that plays whole runs, server and clients, one after the other.

It is forked by :mod:`server_app.engine.fork_server`, gets one :class:`Job` after the other and answers each with its
:class:`Outcome`; in between it keeps data and modules. A run is the app's own, with the numbers of ``winnow run``.
"""

import json
import os
import shutil
import socket
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from logging import StreamHandler
from pathlib import Path
from typing import Any

from flwr.common.logger import FLOWER_LOGGER

from server_app.callbacks.base import Callback
from server_app.engine.grid import RUN_ID, WorkerGrid
from server_app.engine.in_process import InProcessPool
from server_app.engine.wire import Pipe
from server_app.engine.worker import Start, begin
from server_app.run import Recording, run_training
from server_app.state import RunState
from server_app.storage.checkpoints import CheckpointFolder
from server_app.storage.run_directory import METRICS, STATUS, VERSIONS, timestamp
from server_app.sweep.database import COMPLETED, FAILED, Series
from tasks.config import Flat, parse
from tasks.files import WriteError
from tasks.protocol import Mode

LOG = "log.txt"
"""File of a run's directory with what the run printed."""
NO_SERIES = ("round", "selected", "replies")


@dataclass(frozen=True)
class Job:
    """One run to play.

    Attributes
    ----------
    settings
        All of its settings that differ from the defaults.
    folder
        Its run directory.
    checkpoints
        Whether it writes them; then it goes on from one that is there.
    stop_after
        The round after which it ends, to measure how long rounds take; 0 = it is played to its end.
    """

    key: str
    settings: Flat
    folder: Path
    checkpoints: bool = False
    stop_after: int = 0


@dataclass(frozen=True)
class Began:
    """What a player says after the first round of a run: the bytes of memory that its process takes."""

    key: str
    memory: int


@dataclass(frozen=True)
class Outcome:
    """How a run ended. ``stops_all`` says that no other run could do better: the disk is full."""

    key: str
    state: str
    reason: str = ""
    started: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best_round: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    series: Series = field(default_factory=dict)
    stops_all: bool = False


def main(end: socket.socket) -> None:
    """Play the runs that come until the pipe is closed; what a process that is forked for a sweep does."""
    pipe = Pipe(end)
    begin()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            received = pipe.receive()
            if isinstance(received, Job):
                pipe.send(play(received, pipe.send))
            else:  # variables of its own, which come first
                os.environ.update(received)


def play(job: Job, tell: Callable[[Began], None] = lambda _: None) -> Outcome:
    """Play one run and return how it ended; ``tell`` is called after its first round. What it prints is in its log.

    A run that raises is FAILED, with the reason.
    """
    started, seconds, cpu_seconds = timestamp(), time.monotonic(), time.process_time()
    state, reason, stops_all = COMPLETED, "", False
    try:
        _play(job, tell)
    except (Exception, SystemExit) as error:  # whatever a plug-in raises belongs to this run alone
        state, reason = FAILED, f"{type(error).__name__}: {error}"
        stops_all = isinstance(error, WriteError)
    seconds, cpu_seconds = time.monotonic() - seconds, time.process_time() - cpu_seconds
    return Outcome(
        key=job.key,
        state=state,
        reason=reason,
        started=started,
        seconds=round(seconds, 3),
        cpu_seconds=round(cpu_seconds, 3),
        best_round=_read(job.folder / STATUS).get("best_round"),
        versions={name: str(value) for name, value in _read(job.folder / VERSIONS).items()},
        series=read_series(job.folder / METRICS),
        stops_all=stops_all,
    )


def _play(job: Job, tell: Callable[[Began], None]) -> None:
    flat = dict(job.settings)
    if job.checkpoints and CheckpointFolder(job.folder).holds_any():
        flat["run.resume"] = str(job.folder)
    elif job.folder.exists():
        shutil.rmtree(job.folder)
    job.folder.mkdir(parents=True, exist_ok=True)
    settings, pool = parse(flat), InProcessPool(Start(RUN_ID, flat))
    recording = Recording(job.folder, job.checkpoints, page=False, callbacks=(Watch(job, tell),))
    with _printed(job.folder / LOG):
        grid = WorkerGrid(pool, settings.federation.num_clients)
        run_training(grid, settings, Mode.SIMULATION, recording=recording)


@contextmanager
def _printed(path: Path) -> Iterator[None]:
    """Let all that the block prints, and what Flower's logger says, go into a file."""
    handlers = [each for each in FLOWER_LOGGER.handlers if isinstance(each, StreamHandler)]
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        before = [handler.setStream(file) for handler in handlers]
        try:
            with redirect_stdout(file), redirect_stderr(file):
                yield
        except Exception:
            traceback.print_exc(file=file)
            raise
        finally:
            for handler, stream in zip(handlers, before, strict=True):
                if stream is not None:
                    handler.setStream(stream)


def read_series(path: Path) -> Series:
    """Return the measures of a run by name from its metrics.jsonl; what was not measured or not finite is left out."""
    series: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(ValueError):  # the last line, where a crash or a full disk cut it off
            measures = json.loads(line)
            for name, value in measures.items():
                if type(value) in (int, float) and name not in NO_SERIES:
                    series[name].append((measures["round"], float(value)))
    return {name: tuple(points) for name, points in series.items()}


def _read(path: Path) -> dict[str, Any]:
    """Return what a JSON file of a run says, nothing if there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


class Watch(Callback):
    """Tells the sweep when the first round is done, and ends a run that is only to be measured."""

    def __init__(self, job: Job, tell: Callable[[Began], None]) -> None:
        self._job, self._tell, self._told = job, tell, False

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Look at the round."""
        if state.server_round and not self._told:
            self._told = True
            self._tell(Began(self._job.key, memory_taken()))
        return "measured" if 0 < self._job.stop_after <= state.server_round else ""


def memory_taken() -> int:
    """Return the bytes of memory that are this process' own, or all that it ever took where the system does not say."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
