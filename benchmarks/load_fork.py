"""Start many of Flower's processes from one that has imported them: fifty SuperNodes then fit into a few gigabytes.

    python -m benchmarks.load_fork PIPE

Each order, a line of JSON in the pipe, becomes a process of its own that runs Flower's own main function as the console
script does. Only the memory of the imported modules is shared, and they are imported once.

Executors take turns (:class:`Turns`): fifty machines would train at the same time, one machine cannot.
"""

import fcntl
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace
from typing import Any

from flwr.supercore.superexec.executor import subprocess_executor

from server_app.command.superlink import Connection

PROGRAMS = ("flower-supernode", "flower-superexec")
PLACES = "WINNOW_LOAD_PLACES"  # how many ClientApps may live at a time
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ForkingConnection(Connection):
    """A connection whose servers are started by a process that forks, ``forker``, told through ``pipe``."""

    forker: "Popen[str] | None" = None
    pipe: Path = Path()

    def serve(self, program: str, *arguments: str, name: str = "") -> "Popen[str]":
        """Order a server, and return the process that will start it."""
        assert self.forker is not None
        order = {"command": [program, *arguments], "environment": dict(self.environment), "cwd": str(self.folder)}
        with self.pipe.open("w") as pipe:
            pipe.write(json.dumps({**order, "log": str(self.log_file(name or program))}) + "\n")
        return self.forker


def forking(link: Connection) -> ForkingConnection:
    """Start the process that forks and return the connection that uses it."""
    pipe = link.home / "orders"
    os.mkfifo(pipe)
    with link.log_file("forker").open("w") as output:
        command = [sys.executable, "-m", "benchmarks.load_fork", str(pipe)]
        forker = link.processes.start(command, link.environment, ROOT, output)
    return ForkingConnection(
        **{field.name: getattr(link, field.name) for field in fields(link)}, forker=forker, pipe=pipe
    )


class Turns:
    """Lets an executor look for work only while it has one of ``places``, which it keeps until its ClientApp has ended.

    Flower's executor starts a process for every message, and another one for what has not begun within 30 s: fifty at
    once on one machine become a hundred, and so on.
    """

    def __init__(self, places: int) -> None:
        folder = Path(tempfile.gettempdir())
        self._files = [os.open(folder / f"winnow-load-{place}", os.O_CREAT | os.O_RDWR) for place in range(places)]
        self._apps: list[Popen[str]] = []

    def start(self, *arguments: Any, **options: Any) -> "Popen[str]":
        """Start a ClientApp."""
        self._apps.append(Popen(*arguments, **options))
        return self._apps[-1]

    def wait(self, _: object = None) -> None:
        """Give the place back once the ClientApp has ended, and wait for the next one."""
        for app in self._apps:
            app.wait()
        self._apps.clear()
        for file in self._files:
            fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(1.0)
        while not any(_locked(file) for file in self._files):
            time.sleep(0.1)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main() -> None:
    """Take orders until the process is ended."""
    scripts = {script.name: script for script in entry_points(group="console_scripts")}
    mains = {name: scripts[name].load() for name in PROGRAMS}
    gc.collect()
    gc.freeze()  # the collector would write to the shared pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with os.fdopen(os.open(sys.argv[1], os.O_RDWR), "r") as orders:  # open for writing too: it never ends
        for line in orders:
            order = json.loads(line)
            if os.fork() == 0:
                become(order, mains[order["command"][0]])


def become(order: dict[str, Any], program: Callable[[], None]) -> None:
    """Turn this process into the ordered one, and end it with the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["command"]
    Path("/proc/self/comm").write_text(sys.argv[0])  # the name by which the meter knows it
    turns = Turns(int(os.environ[PLACES]))
    vars(subprocess_executor)["subprocess"] = SimpleNamespace(Popen=turns.start, DEVNULL=subprocess.DEVNULL)
    subprocess_executor.SubprocessExecutor.reconcile = turns.wait  # type: ignore[assignment,method-assign]
    program()
    sys.exit()


if __name__ == "__main__":
    main()
