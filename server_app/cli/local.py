"""Local engine of ``winnow run``: the ServerApp runs in this process, its clients in workers of ours, without Ray.

It is the code of the app's own ServerApp and ClientApp. Its lines go through the same log as those of Flower's engine.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from logging import ERROR, StreamHandler
from math import ceil
from typing import Any

from server_app.cli.config import CommandError, RunPlan, installed_app
from server_app.cli.environment import SETTINGS, neutral
from server_app.cli.processes import StopRequested
from server_app.cli.run_log import RunLog
from server_app.engine.fork_server import ForkServer
from tasks.settings import FederationSettings, Settings

VISIBLE = "CUDA_VISIBLE_DEVICES"
ROUNDING = 1e-9  # ten times 0.1 of a GPU are one
QUIET = {name: SETTINGS[name] for name in ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK")}


class LineWriter(TextIOBase):
    """A text stream whose lines go to a log."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._begun = ""

    def write(self, text: str) -> int:
        """Take a text; a line is passed on when it is whole."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._log.write(line)
        return len(text)


def client_variables(federation: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of the workers: the user's, with as many threads for each as Ray gives an actor."""
    threads = {"OMP_NUM_THREADS": str(federation.get("federation.client-cpus") or 1)}
    return {**threads, **neutral(os.environ), **QUIET}


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_devices(federation: FederationSettings) -> list[dict[str, str]]:
    """Return for each worker which GPUs it sees: as many workers as fit on this machine, at most one for each client.

    A client that reserves no GPU may still use one, as with Flower's engine.
    """
    count = max(1, min(cores() // (federation.client_cpus or 1), federation.num_clients))
    if not federation.client_gpus:
        return [{}] * count
    return [{VISIBLE: gpus} for gpus in shares(federation.client_gpus)[:count]]


def shares(share: float) -> list[str]:
    """Return the GPUs of each worker that has a ``share``, of one GPU or a whole number of them."""
    import torch

    chosen, count = os.environ.get(VISIBLE), torch.cuda.device_count()
    gpus = chosen.split(",")[:count] if chosen else [str(number) for number in range(count)]
    if share < 1:
        return [gpu for gpu in gpus for _ in range(int(1 / share + ROUNDING))]
    each = ceil(share)
    return [",".join(gpus[first : first + each]) for first in range(0, len(gpus) - each + 1, each)]


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def logged(log: RunLog) -> Iterator[None]:
    """Send what is printed, and what Flower's logger says, to a log while the block runs."""
    from flwr.common.logger import FLOWER_LOGGER

    writer = LineWriter(log)
    handlers = [handler for handler in FLOWER_LOGGER.handlers if isinstance(handler, StreamHandler)]
    before = [handler.setStream(writer) for handler in handlers]
    try:
        with log.to(sys.stdout), redirect_stdout(writer):
            yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if stream is not None:
                handler.setStream(stream)


@contextmanager
def told_of_a_stop() -> Iterator[None]:
    """Say it when the block is stopped: to end takes a moment."""
    try:
        yield
    except StopRequested:
        print("\nStopping the run ...", flush=True)
        raise


def simulate(
    plan: RunPlan, check: Callable[[], Settings], environment: Mapping[str, str], log: RunLog
) -> tuple[str, str]:
    """Do the run and return its status in Flower's words, with details.

    Parameters
    ----------
    check
        Checks the settings and returns them; meanwhile the first process of the workers imports what they need.
    environment
        Variables of this run.

    Raises
    ------
    CommandError
        If the code of another folder is to be run: this process has already loaded its own.
    """
    if plan.app != installed_app():
        raise CommandError(f"--engine local runs the installed code, not that of {plan.app}: add  --engine flower")
    with variables(environment), told_of_a_stop():
        server = ForkServer(client_variables(plan.flat))
        try:
            return run_app(plan, check(), server, log)
        finally:
            server.close()


def run_app(plan: RunPlan, settings: Settings, server: ForkServer, log: RunLog) -> tuple[str, str]:
    """Run the app's ServerApp in this process, with all its variants; return the status in Flower's words, and details.

    An error's traceback goes to the log, as Flower's engine does it.
    """
    from flwr.app import Context, RecordDict
    from flwr.common.logger import log as flower_log

    from server_app.app import app
    from server_app.engine.grid import RUN_ID, SERVER, WorkerGrid
    from server_app.engine.pool import WorkerPool
    from server_app.engine.worker import Start

    flat, federation = dict(plan.flat), settings.federation
    pool = WorkerPool(server, Start(RUN_ID, flat), worker_devices(federation), log.write)
    with logged(log):
        try:
            app(WorkerGrid(pool, federation.num_clients), Context(RUN_ID, SERVER, {}, RecordDict(), flat))
        except Exception as error:
            flower_log(ERROR, "Simulation raised an exception", exc_info=error)
            return "finished:failed", f"Simulation failed with exception: {error}"
        finally:
            pool.close()
    return "finished:completed", ""
