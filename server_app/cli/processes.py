"""Processes of a command: programs whose descendants can all be ended again, and stop signals as one exception.

A program started here leads its own session (POSIX). Its descendants stay in that session, even when the program
itself has died and they have been adopted by another parent, so a session is the handle by which all are found.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROC = Path("/proc")
POLL_SECONDS = 0.05


class StopRequested(BaseException):
    """The user (Ctrl-C) or the system (SIGTERM, SIGHUP) asks to stop; carries the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def stop_requests() -> Iterator[None]:
    """Raise :class:`StopRequested` on the first stop signal; ignore later ones: nothing interrupts cleaning up.

    A signal that the caller has us ignore, as nohup does SIGHUP, stays ignored.
    """

    def handle(signum: int, _frame: FrameType | None) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)
        raise StopRequested(signum)

    heeded = _heeded()
    previous = {each: signal.signal(each, handle) for each in heeded}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold stop signals back until the block ends: a signal between fork and bookkeeping would lose the child."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    previous = {each: signal.signal(each, lambda signum, _: received.append(signum)) for each in _heeded()}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
        for signum in received[:1]:
            signal.raise_signal(signum)


def _heeded() -> list[signal.Signals]:
    """Return the stop signals that are not ignored."""
    return [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]


class ProcessGroup:
    """Programs started together, each leading its own session, and everything that they start."""

    def __init__(self) -> None:
        self.programs: list[subprocess.Popen[str]] = []

    def start(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        output: IO[str] | int,
        errors: IO[str] | int = subprocess.STDOUT,
    ) -> "subprocess.Popen[str]":
        """Start a program; ``output`` and ``errors`` take what it writes (a file or a constant of ``subprocess``)."""
        with signals_deferred():
            program = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self.programs.append(program)
        return program

    def members(self) -> list[int]:
        """Return the ids of all living processes of these sessions."""
        for program in self.programs:
            program.poll()  # reaps it when it has ended
        return processes_in({program.pid for program in self.programs})

    def stop(self, grace: float = 8.0) -> list[int]:
        """Ask every process to end, end by force what is left after ``grace`` seconds; return what survives."""
        for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + patience
            for pid in self.members():
                _send(pid, signum)
            while self.members() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        return self.members()


def processes_in(sessions: Collection[int]) -> list[int]:
    """Return the living processes (zombies do not count) whose session leader is one of ``sessions``."""
    return [pid for pid, state in _states().items() if state != "Z" and _session(pid) in sessions]


def _states() -> dict[int, str]:
    """Return the state letter of each process, from /proc where there is one (a slim container has no ps)."""
    if (PROC / "self/stat").exists():
        found = ((int(folder.name), _proc_state(folder)) for folder in PROC.iterdir() if folder.name.isdigit())
        return {pid: state for pid, state in found if state}
    listing = subprocess.run(["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True, check=True).stdout
    return {int(pid): stat[0] for pid, stat in (line.split() for line in listing.splitlines())}


def _proc_state(folder: Path) -> str:
    try:
        return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:  # ended meanwhile
        return ""


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _send(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return
