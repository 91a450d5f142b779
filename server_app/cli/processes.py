"""Processes of a command: programs whose descendants can all be ended again, and stop signals as one exception.

A program started here leads its own session (POSIX). Its descendants stay in that session, even when the program
itself has died and they have been adopted by another parent, so a session is the handle by which all are found.

A command that is killed cannot clean up. So it holds a lock on its temporary folder, in which every program notes its
session before it begins; a watchdog, which is this file run as a script, waits for that lock and then ends the sessions
and removes the folder. The kernel frees a lock with its owner, however that ends. A folder that nobody locks is a
leftover, and ``winnow doctor`` names it.
"""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROC = Path("/proc")
POLL_SECONDS = 0.05
GRACE = 8.0
"""Seconds in which a program that is asked to end may do so by itself."""
PREFIX = "winnow-"
LOCK, SESSIONS = "lock", "sessions"
OWNER = "WINNOW_HOME"
NOTED = 'echo $$ >>"$0" && exec "$@" </dev/null'
"""A shell notes its number, which is the session's, and becomes the program. Until then it holds the lock, as stdin."""


class StopRequested(BaseException):
    """The user (Ctrl-C) or the system (SIGTERM, SIGHUP) asks to stop; carries the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def reason(self) -> str:
        """What the record of a run says."""
        return f"stopped by {self}"


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
    """Programs started together, each leading its own session, and everything that they start.

    Parameters
    ----------
    home
        The folder in which the sessions are noted, and the open lock on it; see :func:`watched`.
    """

    def __init__(self, home: tuple[Path, int] | None = None) -> None:
        self.programs: list[subprocess.Popen[str]] = []
        self._home = home

    def start(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        output: IO[str] | int,
        errors: IO[str] | int = subprocess.STDOUT,
    ) -> "subprocess.Popen[str]":
        """Start a program; ``output`` and ``errors`` take what it writes (a file or a constant of ``subprocess``)."""
        noted: list[str] = []
        lock = subprocess.DEVNULL
        if self._home is not None:
            home, lock = self._home
            noted, env = ["/bin/sh", "-c", NOTED, str(home / SESSIONS)], {**env, OWNER: str(home)}
        with signals_deferred():
            program = subprocess.Popen(
                [*noted, *command],
                env=env,
                cwd=cwd,
                stdin=lock,
                stdout=output,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            program.args = list(command)  # what it is once it has been noted
            self.programs.append(program)
        return program

    def members(self) -> list[int]:
        """Return the ids of all living processes of these sessions."""
        for program in self.programs:
            program.poll()  # reaps it when it has ended
        return processes_in({program.pid for program in self.programs})

    def stop(self, grace: float = GRACE) -> list[int]:
        """Ask every process to end, end by force what is left after ``grace`` seconds; return what survives."""
        return end(self.members, grace)


def end(members: Callable[[], list[int]], grace: float = GRACE) -> list[int]:
    """Do what :meth:`ProcessGroup.stop` says with the processes that ``members`` finds."""
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience
        for pid in members():
            _send(pid, signum)
        while members() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    return members()


@contextmanager
def watched(home: Path) -> Iterator[ProcessGroup]:
    """Watch over a folder while the block runs: if this process is killed, it goes, with the group's programs.

    The block itself ends the programs and removes the folder; else the watchdog does.
    """
    lock = _lock(home, os.O_CREAT)
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-I", "-S", __file__, str(home)]
    with signals_deferred():
        watchdog = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/", start_new_session=True)
    try:
        yield ProcessGroup((home, lock))
    finally:
        os.close(lock)
        watchdog.wait()


def watch(home: Path) -> None:
    """Wait until the owner of a folder is gone; if the folder is still there, end its programs and remove it."""
    try:
        _lock(home)
    except FileNotFoundError:
        return
    if home.exists():
        end(lambda: noted_processes(home))
        shutil.rmtree(home, ignore_errors=True)


def _lock(home: Path, flags: int = 0, kind: int = fcntl.LOCK_EX) -> int:
    lock = os.open(home / LOCK, os.O_RDWR | flags, 0o600)
    try:
        fcntl.flock(lock, kind)
    except OSError as error:
        os.close(lock)
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise
        advice = "this disk has no file locks; set TMPDIR to a folder on a local disk"
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)}: {advice}", str(home)) from error
    return lock


def noted_processes(home: Path) -> list[int]:
    """Return the living processes of the sessions that are noted in a folder."""
    try:
        sessions = {int(line) for line in (home / SESSIONS).read_text().splitlines()}
    except FileNotFoundError:
        return []
    return processes_in({session for session in sessions if not _is_another(session, home)})


def _is_another(pid: int, home: Path) -> bool:
    """Tell whether this process, as far as it can be seen, is not the one that was noted: numbers are used again."""
    try:
        variables = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, hides its variables, or there is no /proc; a zombie has none
        return False
    return variables != [b""] and f"{OWNER}={home}".encode() not in variables


def leftovers(parents: Iterable[str]) -> dict[Path, list[int]]:
    """Return the temporary folders of this user's commands that were killed, each with the processes left of it.

    ``parents`` are the folders in which temporary ones are made.
    """
    homes = sorted(home for parent in {Path(name).resolve() for name in parents} for home in parent.glob(f"{PREFIX}*"))
    return {home: noted_processes(home) for home in homes if _is_left(home)}


def _is_left(home: Path) -> bool:
    if home.is_symlink() or not home.is_dir() or home.stat().st_uid != os.getuid():
        return False
    try:
        os.close(_lock(home, kind=fcntl.LOCK_SH | fcntl.LOCK_NB))
    except FileNotFoundError:  # killed before it had a lock
        return True
    except BlockingIOError:
        return False
    return True


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


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
