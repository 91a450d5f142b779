"""Trainer process of a node, kept from message to message: the way to it from the process that Flower starts for one.

Flower starts a program for every message, and importing torch and the app takes seconds. So the first message at a node
starts a trainer (``trainer_process.py``), which answers the next ones too. It is found by a socket in a folder of 0700
in the node's state directory. It inherits a lock on that folder, which the kernel frees when it ends, however that
happens: there are never two for one node. One with another fingerprint (code, packages, configuration of the node, run)
ends when it is greeted; one that does not answer is killed. Nothing here imports more than Python's own library.
"""

import fcntl
import hashlib
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IDLE = "trainer-idle"
IDLE_MINUTES = 15.0
SOCKET, LOCK = "socket", "lock"
READY, STALE, WORKING, ANSWERED, NOT_LOADED, RAISED = "ready", "stale", "working", "answered", "not loaded", "raised"
BEAT_SECONDS = 10.0
PATIENCE = 60.0
"""Seconds of silence after which a trainer counts as dead, as for Flower a process without two of its heartbeats."""
PAUSE = 0.02
BOOT = (
    "import json, sys; plan = json.loads(sys.argv[1]); sys.path[:] = plan['path'];"
    "from client_app.trainer_process import main; main(plan)"
)
CREDENTIALS = struct.Struct("3i")  # process, user, group


class NoTrainerError(Exception):
    """There can be no trainer here; the message says why. Nobody has worked on the message yet."""


class TrainerLostError(Exception):
    """The trainer has died, or fell silent and was killed, while it worked on a message."""


class TrainerFailedError(Exception):
    """The trainer could not load the app, or the app raised an error that it does not answer itself.

    Parameters
    ----------
    state
        ``NOT_LOADED`` or ``RAISED``.
    kind
        The name of the error; its text is in the log of the node.
    """

    def __init__(self, state: str, kind: str) -> None:
        super().__init__(f"{kind}: see the log of the node")
        self.state = state


def idle_seconds(node: Mapping[str, object]) -> float:
    """Return for how long a node's trainer waits for the next message, 0 for no trainer.

    Raises
    ------
    ValueError
        If the operator has set anything but minutes.

    >>> idle_seconds({}), idle_seconds({"trainer-idle": 0.5})
    (900.0, 30.0)
    """
    minutes = node.get(IDLE, IDLE_MINUTES)
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 <= minutes <= 1e6:
        raise ValueError(f"{IDLE} = {minutes!r}: expected minutes, 0 for no trainer process, up to a million")
    return 60.0 * minutes


def fingerprint(root: Path, facts: object) -> str:
    """Return a digest of the code below ``root``, installed packages, environment and ``facts`` (of JSON's types).

    Files go by size and time of change: reading them all would take longer.
    """
    found = hashlib.sha256(json.dumps([facts, sys.path, sys.version, os.getcwd(), sorted(os.environ.items())]).encode())
    for name, size, changed in sorted(_code(str(root))):
        found.update(f"{name} {size} {changed}\n".encode())
    for folder in sys.path:
        with suppress(OSError):
            names = [name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info", ".pth"))]
            found.update(json.dumps([folder, sorted(names)]).encode())
    return found.hexdigest()


def _code(folder: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _code(entry.path)
            elif entry.name.endswith((".py", ".toml")):
                facts = entry.stat()
                yield entry.path, facts.st_size, facts.st_mtime_ns


def send(connection: socket.socket, *parts: bytes | memoryview) -> None:
    """Send parts of any size as one transmission: their number, their sizes, then all of them."""
    connection.sendall(struct.pack(f"<I{len(parts)}Q", len(parts), *map(len, parts)))
    for part in parts:
        connection.sendall(part)


def receive(connection: socket.socket) -> list[bytes]:
    """Return the parts of one transmission.

    Raises
    ------
    EOFError
        If the other end closes the connection.
    """
    [count] = struct.unpack("<I", _exactly(connection, 4))
    sizes = struct.unpack(f"<{count}Q", _exactly(connection, 8 * count))
    return [_exactly(connection, size) for size in sizes]


def _exactly(connection: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise EOFError("the other end has closed the connection")
        rest = rest[count:]
    return bytes(buffer)


def is_own(connection: socket.socket) -> bool:
    """Tell whether a process of this user is at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return bool(CREDENTIALS.unpack(found)[1] == os.getuid())


@dataclass(frozen=True)
class TrainerLink:
    """The way to the trainer of one node.

    Parameters
    ----------
    folder
        Where its socket and its lock are; it is made if it is not there.
    fingerprint
        What the trainer must have been started with.
    target
        ``module:function`` that answers: lists of bytes to lists of bytes.
    idle
        Seconds after which a trainer without work ends.
    patience
        Seconds of silence after which it is killed.
    """

    folder: Path
    fingerprint: str
    target: str
    idle: float = 60 * IDLE_MINUTES
    patience: float = PATIENCE

    def ask(self, parts: Sequence[bytes]) -> list[bytes]:
        """Let the trainer answer; one is started if there is none that fits.

        Raises
        ------
        NoTrainerError
            If there can be none.
        TrainerLostError
            If it does not live to answer.
        TrainerFailedError
            If it cannot.
        """
        with _opened(self.folder) as place:
            connection, started = self._connect(place)
            with connection:
                try:
                    return _answer(connection, parts)
                except TimeoutError as error:
                    _kill(place)
                    text = f"it was not heard of for {self.patience:g} s and has been killed"
                    raise TrainerLostError(text) from error
                except (EOFError, OSError) as error:
                    raise TrainerLostError(_ending(started)) from error

    def _connect(self, place: int) -> tuple[socket.socket, "subprocess.Popen[bytes] | None"]:
        started, deadline = None, time.monotonic() + 3 * self.patience
        while time.monotonic() < deadline:
            try:
                if (lock := _lock(place)) is not None:
                    if started is not None:
                        raise NoTrainerError(f"{_ending(started)} at its start")
                    started = self._start(place, lock)
                if (connection := self._greeted(place)) is not None:
                    return connection, started
            except OSError as error:
                raise NoTrainerError(str(error)) from error
            time.sleep(PAUSE)
        raise NoTrainerError(
            f"what holds the lock in {self.folder.name} of the state directory neither answers nor ends"
        )

    def _start(self, place: int, lock: int) -> "subprocess.Popen[bytes]":
        """Start a trainer that has the lock, the socket, and a handle of the executor that started this process."""
        path, executor = _socket_path(place), -1
        try:
            executor = os.pidfd_open(os.getppid())
            with socket.socket(socket.AF_UNIX) as listener:
                with suppress(FileNotFoundError):
                    os.unlink(SOCKET, dir_fd=place)
                listener.bind(path)
                os.chmod(path, 0o600)
                listener.listen()
                files = {"listener": listener.fileno(), "lock": lock, "executor": executor}
                plan = {**files, "path": sys.path, "program": sys.argv[0], **self._plan()}
                command = [sys.executable, "-P", "-c", BOOT, json.dumps(plan)]
                return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=tuple(files.values()))
        finally:
            os.close(lock)
            if executor >= 0:
                os.close(executor)

    def _plan(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, "target": self.target, "idle": self.idle}

    def _greeted(self, place: int) -> socket.socket | None:
        """Return a connection to a trainer that is ready; None if there is none yet, or none any more."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(self.patience)
        try:
            connection.connect(_socket_path(place))
            if not is_own(connection):
                raise NoTrainerError("the socket in the state directory is another user's")
            send(connection, self.fingerprint.encode())
            if receive(connection) == [READY.encode()]:
                return connection
        except TimeoutError:
            _kill(place)
        except (EOFError, ConnectionError, FileNotFoundError):  # it is just starting, or just ending
            pass
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None


def _answer(connection: socket.socket, parts: Sequence[bytes]) -> list[bytes]:
    send(connection, *parts)
    while True:
        state, *answer = receive(connection)
        if state == ANSWERED.encode():
            return answer
        if state != WORKING.encode():
            raise TrainerFailedError(state.decode(), answer[0].decode())


def _ending(started: "subprocess.Popen[bytes] | None") -> str:
    """Say how a trainer has ended, as far as it can be known."""
    try:
        status = None if started is None else started.wait(1.0)
    except subprocess.TimeoutExpired:
        status = None
    if status is None:
        return "it has ended"
    return f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"it has ended with status {status}"


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder that is this user's alone; paths of sockets are short, and those below a descriptor always are.

    Raises
    ------
    NoTrainerError
        If it is not, or cannot be made.
    """
    place = -1
    try:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            found = os.fstat(place)
        except OSError as error:
            raise NoTrainerError(f"{folder.name} in the state directory: {error.strerror}") from error
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise NoTrainerError(f"{folder.name} in the state directory is not this user's alone: remove it")
        yield place
    finally:
        if place >= 0:
            os.close(place)


def _socket_path(place: int) -> str:
    return f"/proc/self/fd/{place}/{SOCKET}"


def _lock(place: int) -> int | None:
    """Return the lock on a folder, or None if a trainer has it. Its file holds the trainer's number."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=place)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        os.close(lock)
        raise
    return lock


def _kill(place: int) -> None:
    """Kill the trainer that has the lock; the number in the file is its own as long as it has it."""
    with suppress(OSError, ValueError):
        with os.fdopen(os.open(LOCK, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=place)) as file:
            process = os.pidfd_open(int(file.read()))
        try:
            if (lock := _lock(place)) is None:
                signal.pidfd_send_signal(process, signal.SIGKILL)
            else:
                os.close(lock)
        finally:
            os.close(process)
