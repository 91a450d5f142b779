"""Fork server: one process that imports torch and the ClientApp once, and forks the workers of a simulation.

A fork costs milliseconds and shares what is imported, so workers start quickly and a dead one is replaced at once. It
has no threads and computes nothing, so forking is safe, also before CUDA is used. It leads a session of its own, which
Ctrl-C does not reach; when its control socket is closed, by the end of the server however that ends, it ends all its
workers and itself.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

BESIDE = Path(__file__).resolve().parents[2]
PROGRAM = (
    "import gc, json, sys; gc.disable(); sys.path[:] = json.loads(sys.argv[2]); "
    "from server_app.engine.fork_server import serve; serve(int(sys.argv[1]))"
)
NUMBER = struct.Struct("<q")
PATIENCE = 10.0  # seconds that it may take to end its workers


class EngineError(RuntimeError):
    """The processes of a simulation cannot be started; the message says why."""


class ForkServer:
    """The server's side: starts the process, asks for workers, and learns how they ended.

    Parameters
    ----------
    variables
        The environment of it and all workers.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._control, other = socket.socketpair()
        path = [str(BESIDE), *(entry for entry in sys.path if entry)]
        command = [sys.executable, "-P", "-c", PROGRAM, str(other.fileno()), json.dumps(path)]
        with other:
            self._program = subprocess.Popen(
                command,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # also if ours is a file: a worker's streams, taken over, must not be seekable
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                pass_fds=[other.fileno()],
                start_new_session=True,
            )

        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            print(line, end="", file=sys.stderr, flush=True)

    def fork(self, pipe: socket.socket, output: int) -> int:
        """Return the id of a new worker at ``pipe``, which writes into the file ``output``; waits for the imports.

        Raises
        ------
        EngineError
            If the process has ended.
        """
        try:
            socket.send_fds(self._control, [b"fork"], [pipe.fileno(), output])
            return self._answer()
        except OSError as error:
            raise EngineError(self._ended()) from error

    def end(self, worker: int) -> int:
        """End a worker, if it still lives, and return its exit code; that of a signal is negative.

        Raises
        ------
        EngineError
            If the fork server has ended.
        """
        try:
            self._control.sendall(NUMBER.pack(worker))
            return self._answer()
        except OSError as error:
            raise EngineError(self._ended()) from error

    def _answer(self) -> int:
        data = self._control.recv(NUMBER.size)
        if len(data) < NUMBER.size:
            raise ConnectionError("no answer")
        return int(NUMBER.unpack(data)[0])

    def _ended(self) -> str:
        code = self._program.wait()
        return f"the process that starts the clients' processes has ended ({how_it_ended(code)}); why is said above"

    def close(self) -> None:
        """End the process and all workers."""
        self._control.close()
        try:
            self._program.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()


def how_it_ended(code: int) -> str:
    """Return the exit code of a process in words.

    >>> how_it_ended(1), how_it_ended(-9)
    ('exit code 1', 'killed by SIGKILL: out of memory?')
    """
    if code >= 0:
        return f"exit code {code}"
    hint = ": out of memory?" if -code == signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"


def serve(descriptor: int) -> None:
    """Fork and end workers as asked, until the control socket is closed; what the process started here does."""
    from server_app.engine import worker

    gc.collect()
    gc.freeze()  # what all workers share stays shared: a collection would write to every object
    gc.enable()  # until here it would only have slowed the imports
    children: set[int] = set()
    with socket.socket(fileno=descriptor) as control:
        while True:
            data, files, _, _ = socket.recv_fds(control, NUMBER.size, 2)
            if files:
                child = os.fork()
                if not child:
                    control.close()
                    _become(worker.main, files)
                children.add(child)
                for file in files:
                    os.close(file)
                control.sendall(NUMBER.pack(child))
            elif data:
                child = NUMBER.unpack(data)[0]
                children.discard(child)
                control.sendall(NUMBER.pack(_end(child)))
            else:
                break
    for child in children:
        _end(child)


def _become(work: Callable[[socket.socket], None], files: list[int]) -> NoReturn:
    """Be a worker to the end of this process."""
    code = 1
    try:
        pipe, output = files
        for standard in (1, 2):
            os.dup2(output, standard)
        os.close(output)
        with socket.socket(fileno=pipe) as own:
            work(own)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end(child: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
