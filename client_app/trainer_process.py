"""Trainer process of a node: answers one message after the other until its node ends, it idles, or its code is old.

``trainer_link.py`` starts it, and hands it the socket, the lock and a handle of the executor. While it works it sends
a sign of life every few seconds, and it ends at once when nobody waits for the answer any more, as the process that
Flower has started for the message would.
"""

import gc
import importlib
import os
import select
import socket
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from client_app.trainer_link import (
    ANSWERED,
    BEAT_SECONDS,
    NOT_LOADED,
    PATIENCE,
    RAISED,
    READY,
    STALE,
    WORKING,
    is_own,
    receive,
    send,
)

Target = Callable[[list[bytes]], Sequence[bytes]]
HELLO_SECONDS = 10.0
LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Trainer:
    """Serves the connections of one socket, one after the other.

    Parameters
    ----------
    plan
        ``listener``, ``lock`` and ``executor``: descriptors; ``fingerprint``, ``target`` and ``idle``: see
        :class:`client_app.trainer_link.TrainerLink`.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._fingerprint, self._target, self._idle = plan["fingerprint"], plan["target"], plan["idle"]
        self._executor, self._lock = plan["executor"], plan["lock"]
        for inherited in (plan["listener"], self._executor, self._lock):
            os.set_inheritable(inherited, False)  # the lock must end with this process
        self._listener = socket.socket(fileno=plan["listener"])
        self._started, self._files = time.time_ns(), dict[str, tuple[int, int]]()
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def serve(self) -> str:
        """Answer as long as there is an executor, messages come, and the code is what they ask for; return why not."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._executor, select.POLLIN)
        current = True
        while current:
            ready = [descriptor for descriptor, _ in poll.poll(1000 * self._idle)]
            if not ready or self._executor in ready:
                return "nothing is left to do" if ready else f"no message came for {self._idle / 60:g} minutes"
            connection, _ = self._listener.accept()
            with connection:
                try:
                    current = self._meet(connection)
                except (OSError, EOFError):  # whoever asked has gone
                    continue
            if current:
                rest()
        return "code, packages, configuration or run are others now"

    def _meet(self, connection: socket.socket) -> bool:
        """Answer one process of this user, and return whether the next one may come; the first thing said is enough."""
        if not is_own(connection):
            return True
        connection.settimeout(HELLO_SECONDS)
        current = receive(connection) == [self._fingerprint.encode()] and not self._changed()
        send(connection, (READY if current else STALE).encode())
        if current:
            connection.settimeout(PATIENCE)
            parts = receive(connection)
            with self._watched(connection):
                answer = self._answer(parts)
            send(connection, *answer)
        return current

    def _answer(self, parts: list[bytes]) -> list[bytes]:
        """Return the state and what belongs to it; an error's text stays in the log."""
        try:
            module, _, name = self._target.partition(":")
            function: Target = getattr(importlib.import_module(module), name)
        except Exception as error:
            traceback.print_exc()
            return [NOT_LOADED.encode(), type(error).__name__.encode()]
        self._see()
        try:
            return [ANSWERED.encode(), *function(parts)]
        except Exception as error:
            traceback.print_exc()
            return [RAISED.encode(), type(error).__name__.encode()]
        finally:
            self._see()

    def _see(self) -> None:
        """Remember the files of all modules that are no library, as they were when they were seen first."""
        for module in list(sys.modules.values()):
            file = getattr(module, "__dict__", {}).get("__file__")
            if isinstance(file, str) and file not in self._files and not file.startswith(LIBRARIES):
                self._files[file] = _facts(file)

    def _changed(self) -> bool:
        """Tell whether a file of code is another one now, or may have changed between its import and its being seen."""
        return any(seen != _facts(file) or seen[1] > self._started for file, seen in self._files.items())

    @contextmanager
    def _watched(self, connection: socket.socket) -> Iterator[None]:
        """Watch over the work: signs of life go out, and this process ends when nobody waits for it."""
        done = os.eventfd(0)
        watch = threading.Thread(target=self._watch, args=(connection, done), daemon=True)
        watch.start()
        try:
            yield
        finally:
            os.eventfd_write(done, 1)
            watch.join()
            os.close(done)

    def _watch(self, connection: socket.socket, done: int) -> None:
        poll = select.poll()
        poll.register(self._executor, select.POLLIN)
        poll.register(connection, select.POLLRDHUP)
        poll.register(done, select.POLLIN)
        while not (ready := poll.poll(1000 * BEAT_SECONDS)):
            try:
                send(connection, WORKING.encode())
            except OSError:
                break
        if done not in [descriptor for descriptor, _ in ready]:
            say("ends in its work: nobody waits for the answer any more")
            os._exit(1)


def _facts(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def rest() -> None:
    """Give back what the last message has left: circles of objects, and memory of the GPU that others may need."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.empty_cache()  # does nothing where CUDA has not been used


def say(what: str) -> None:
    """Tell the node's operator, in the log of the executor."""
    print(f"Trainer process {os.getpid()} {what}.", file=sys.stderr, flush=True)


def main(plan: dict[str, Any]) -> None:
    """Be the trainer; the watchdog goes by the program's name, which is that of the process Flower has started."""
    sys.argv[:] = [plan["program"]]
    with suppress(KeyboardInterrupt):
        say("starts; it answers the messages of this node")
        say(f"ends: {Trainer(plan).serve()}")
