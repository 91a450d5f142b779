"""Pipe between the server and a worker of a simulation: messages as pickles, their arrays beside them, uncopied.

Both ends are this program and this user's. Pickle 5 (Pitrou, PEP 574, 2018) hands out large buffers, which are written
as they are. An array that many clients are sent goes to a worker once.
"""

import io
import os
import pickle
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import Array

from client_app.trainer_link import receive, send
from server_app.engine.fork_server import ForkServer

SMALLEST = 2**12  # bytes of a buffer that is worth a write of its own
ROOM = 2**20  # bytes that the system takes before the other end reads
Fields = tuple[str, tuple[int, ...], str, Any]
"""Of an array: dtype, shape, Flower's name for its format, and the bytes."""


class Pipe:
    """One end of a pipe.

    Parameters
    ----------
    end
        What it reads from and writes to.
    shared
        By the ``id`` of an array that may be sent again the number under which the other end keeps it; an array that is
        not there any more is dropped there with the next message.
    """

    def __init__(self, end: socket.socket, shared: Mapping[int, int] | None = None) -> None:
        self._end, self._shared = end, {} if shared is None else shared
        self._there: set[int] = set()  # of the shared ones, what the other end has
        self._arrays: dict[int, Array] = {}  # what the other end shares

    def fileno(self) -> int:
        """Return the descriptor, by which others can wait."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def send(self, value: object) -> None:
        """Send anything that can be pickled.

        Raises
        ------
        OSError
            If the other end is gone.
        """
        buffers: list[memoryview] = []

        def aside(buffer: pickle.PickleBuffer) -> bool:
            large = buffer.raw().nbytes >= SMALLEST
            if large:
                buffers.append(buffer.raw())
            return not large

        self._there &= set(self._shared.values())
        kept, file = set(self._there), io.BytesIO()
        _Pickler(file, aside, self._reference).dump(value)
        parts = [file.getbuffer(), *buffers]
        send(self._end, pickle.dumps(kept), *parts)

    def receive(self) -> Any:
        """Return what was sent.

        Raises
        ------
        EOFError, OSError
            If the other end is gone.
        """
        head, content, *buffers = receive(self._end)
        kept = pickle.loads(head)
        self._arrays = {number: array for number, array in self._arrays.items() if number in kept}
        return _Unpickler(io.BytesIO(content), buffers, self._resolve).load()

    def _reference(self, array: Array) -> tuple[int | None, Fields | None]:
        """Return the number of a shared array, and what it consists of unless the other end has it."""
        number = self._shared.get(id(array))
        if number in self._there:
            return number, None
        if number is not None:
            self._there.add(number)
        return number, (array.dtype, tuple(array.shape), array.stype, pickle.PickleBuffer(array.data))

    def _resolve(self, reference: tuple[int | None, Fields | None]) -> Array:
        number, fields = reference
        if fields is None:
            assert number is not None
            return self._arrays[number]
        array = Array(*fields)
        if number is not None:
            self._arrays[number] = array
        return array


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, aside: Callable[[Any], Any], reference: Callable[[Array], Any]) -> None:
        super().__init__(file, protocol=5, buffer_callback=aside)
        self._reference = reference

    def persistent_id(self, obj: Any) -> Any:
        return self._reference(obj) if type(obj) is Array else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, buffers: list[bytes], resolve: Callable[[Any], Array]) -> None:
        super().__init__(file, buffers=buffers)
        self._resolve = resolve

    def persistent_load(self, pid: Any) -> Array:
        return self._resolve(pid)


def start(server: ForkServer, name: str, say: Callable[[str], None]) -> tuple[int, socket.socket]:
    """Fork a process and return its id and our end of its pipe.

    ``say`` takes each line that it writes, with ``name`` and its id before it.
    """
    (own, other), (reader, writer) = pair(), os.pipe()
    with other:
        pid = server.fork(other, writer)
    os.close(writer)
    threading.Thread(target=_pump, args=(reader, f"({name} pid={pid}) ", say), daemon=True).start()
    return pid, own


def _pump(reader: int, before: str, say: Callable[[str], None]) -> None:
    with open(reader, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            say(before + line)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new pipe, each for a :class:`Pipe`."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    return ends
