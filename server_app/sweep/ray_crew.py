"""Ray cluster as the crew of a sweep: each run is a Ray task, on whichever machine of the cluster has room for it.

Our packages and the plug-ins' travel with the tasks; Ray, Python and the other packages must be there, in the versions
of the machine that starts the sweep, and so must the folders of data and weights, under the same paths. A machine of
the cluster need not see the sweep's folder: a run's own comes back with its outcome.
"""

import io
import logging
import os
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

import server_app
from server_app.sweep.crew import Died, Event
from server_app.sweep.database import SweepError
from server_app.sweep.keys import PACKAGES
from server_app.sweep.player import Job, Outcome, play

NODE = "ray node"
"""Among the versions of a run: the id of the machine that played it."""
KNOCK = 10.0
"""Seconds in which a cluster must answer."""
WAITING = 1.0
"""Seconds after which a wait looks whether the user wants to stop."""


@dataclass(frozen=True)
class Played:
    """A run that was played elsewhere: how it ended, and the files of its folder as a tar archive."""

    outcome: Outcome
    files: bytes


def play_elsewhere(job: Job) -> Played:
    """Play a run in a temporary folder of this machine; the task of Ray."""
    with tempfile.TemporaryDirectory(prefix="winnow-") as place:
        folder = Path(place) / job.folder.name
        outcome = play(replace(job, folder=folder))
        versions = {**outcome.versions, NODE: ray.get_runtime_context().get_node_id()}
        return Played(replace(outcome, versions=versions), packed(folder))


def packed(folder: Path) -> bytes:
    """Return the files below a folder as a tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(folder, arcname="")
    return file.getvalue()


def unpack(files: bytes, folder: Path) -> None:
    """Make a folder with the files of an archive in place of one that is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        archive.extractall(folder, filter="data")


class RayCrew:
    """Plays runs on a Ray cluster.

    Parameters
    ----------
    address
        Of the cluster, as ``ray start`` prints it, or "auto" on one of its machines.
    modules
        Import paths of the plug-ins' modules.
    variables
        Environment variables of all runs.
    share
        What each run takes: ``num_cpus`` and ``num_gpus``.
    jobs
        How many runs side by side; None = as many as the cluster has room for.

    Raises
    ------
    SweepError
        If there is no cluster, or its versions differ.
    """

    def __init__(
        self,
        address: str,
        modules: Sequence[str],
        variables: Mapping[str, str],
        share: Mapping[str, float],
        jobs: int | None = None,
    ) -> None:
        environment = {"py_modules": travelling(modules), "env_vars": dict(variables)}
        try:
            knock(address)
            ray.init(address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and some of its own
            hint = "start one with  ray start --head  and name the address that it prints"
            raise SweepError(f"the Ray cluster at {address} cannot be used: {error}; {hint}") from error
        self._task: Any = ray.remote(max_retries=0, **share)(play_elsewhere)  # type: ignore[call-overload]
        self._share, self._jobs = share, jobs
        self._running: dict[Any, Job] = {}

    @property
    def size(self) -> int:
        """How many runs are played side by side at most; machines may join while the sweep runs."""
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = [
            there.get(name, 0) / self._share[key]
            for name, key in (("CPU", "num_cpus"), ("GPU", "num_gpus"))
            if self._share.get(key)
        ]
        return min(self._jobs or 2**20, max(1, int(min(room, default=1))))

    def free(self) -> bool:
        """Tell whether another run can begin now."""
        return len(self._running) < self.size

    def begin(self, job: Job) -> None:
        """Begin a run; one with checkpoints begins anew, as those of its first attempt are on another machine."""
        self._running[self._task.remote(job)] = job

    def events(self) -> list[Event]:
        """Wait until runs end, and return how."""
        ended: list[Any] = []
        while not ended:
            ended, _ = ray.wait(list(self._running), timeout=WAITING)
        return [self._ended(task) for task in ended]

    def _ended(self, task: Any) -> Event:
        job = self._running.pop(task)
        try:
            played: Played = ray.get(task)
        except RayError as error:
            return Died(job.key, f"its Ray task died ({str(error).strip().splitlines()[0]})")
        unpack(played.files, job.folder)
        return played.outcome

    def close(self) -> None:
        """End all runs and leave the cluster."""
        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()
        ray.shutdown()


def knock(address: str) -> None:
    """Raise ``OSError`` if nobody answers at ``host:port``: Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()


def travelling(modules: Sequence[str]) -> list[str]:
    """Return the folders of our packages and of the plug-ins' top-level packages, or the files of single modules."""
    root = Path(server_app.__path__[0]).resolve().parent
    tops = sorted({module.partition(".")[0] for module in modules} - set(PACKAGES))
    found = [import_module(top) for top in tops]
    places = [Path(str(module.__file__)) for module in found]
    own = [str(place.parent if place.name == "__init__.py" else place) for place in places]
    return [*(os.fspath(root / package) for package in PACKAGES), *own]
