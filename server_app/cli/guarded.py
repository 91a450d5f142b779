"""Flower's servers for one user of a machine that others use too; run as a script, with the server's name first.

Every user of a machine reaches its ports, and Flower's SuperLink takes runs, which are code, from whoever reaches it.
Here it does not. Requests to its Runtime API stay Flower's to judge, by the executor's secret and the token of a task;
so do those to its Fleet API where nodes have keys. All others, also those of a later Flower, must carry a token, which
``flwr`` reads from the private folder of the run (it is the token of an account in Flower's words). Flower hands the
token of a task to its process on the command line, which all can read; here it does so by a file without a name.

It starts Flower's own programs. Where a later Flower is made otherwise, nothing begins: the command that starts a
SuperLink asks it something without the token first (:func:`server_app.cli.access.admits`), and an executor
refuses to start a process whose token it does not see.
"""

import hmac
import importlib
import sys
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

SUPERLINK, EXECUTOR, CLIENT_APP = "flower-superlink", "flower-superexec", "flwr-clientapp"
SUPERNODE = "flower-supernode"
HEALTH, RUNTIME, FLEET = "/health", "/v1/runtime/", "/v1/fleet/"
REALM = 'Bearer realm="winnow"'
MOST_PROCESSES = 4
"""Processes of tasks that an executor has at once. A task whose process does not report within half a minute is given
out again; without a bound, on a machine that is too busy each new process makes all others later, without end."""
REFUSAL = b"This SuperLink serves the user who has started it, by a token."

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application that lets only requests with a token through to another one.

    Parameters
    ----------
    application
        The one behind it.
    token
        What the header ``Authorization: Bearer`` must hold.
    judged
        The beginnings of paths that the application judges itself.
    """

    def __init__(self, application: Application, token: str, judged: tuple[str, ...]) -> None:
        self._application = application
        self._expected = f"Bearer {token}".encode()
        self._judged = judged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it before its body is read."""
        if scope["type"] == "lifespan" or self.admits(scope):
            await self._application(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"www-authenticate", REALM.encode()), (b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def admits(self, scope: Scope) -> bool:
        """Tell whether a request may pass."""
        if scope["type"] == "http" and (scope["path"] == HEALTH or scope["path"].startswith(self._judged)):
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


def run_superlink(token_file: str, *arguments: str) -> None:
    """Run Flower's SuperLink behind a guard; nobody is a node of a simulation, so its Fleet API needs the token too."""
    import uvicorn
    from flwr.superlink.cli import flower_superlink

    judged = (RUNTIME,) if "--simulation" in arguments else (RUNTIME, FLEET)
    token, run = Path(token_file).read_text(), uvicorn.run

    def guarded(app: Application, **options: Any) -> None:
        run(Guard(app, token, judged), **options)

    vars(uvicorn)["run"] = guarded
    sys.argv = [SUPERLINK, *arguments]
    flower_superlink()


def run_executor(*arguments: str) -> None:
    """Run Flower's SuperExec, whose processes get their tokens in private."""
    from flwr.supercore.cli import flower_superexec
    from flwr.supercore.superexec.executor import subprocess_executor

    module = vars(subprocess_executor)
    module["subprocess"] = start = PrivateStart(module["subprocess"])
    executor = subprocess_executor.SubprocessExecutor
    unbounded = executor.get_eligible_capacity

    def capacity(self: Any, kinds: set[Any], **options: Any) -> Any:
        return unbounded(self, kinds, **options) if start.running() < MOST_PROCESSES else (set(), set())

    executor.get_eligible_capacity = capacity  # type: ignore[method-assign,assignment]
    sys.argv = [EXECUTOR, *arguments]
    flower_superexec()


def run_supernode(*arguments: str) -> None:
    """Run Flower's SuperNode, which tries again when a connection was closed before it was there."""
    from flwr.supernode.cli import flower_supernode

    retry_closed_handshakes()
    sys.argv = [SUPERNODE, *arguments]
    flower_supernode()


def retry_closed_handshakes() -> None:
    """Let errors of TLS that say only that the other end has closed read like any other lost connection.

    Flower gives up on all errors that name TLS, since a wrong certificate stays wrong: the SuperNode then goes on
    without a connection, for ever. But what stands before a SuperLink that is restarted (the port that Docker
    publishes, a proxy) accepts connections and closes them.
    """
    import httpx

    unchanged = httpx.HTTPTransport.handle_request

    def handle_request(self: Any, request: Any) -> Any:
        try:
            return unchanged(self, request)
        except httpx.ConnectError as error:
            if "EOF" not in str(error):
                raise
            raise httpx.ConnectError("the other end has closed the connection", request=request) from None

    httpx.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign]


def run_client_app(*arguments: str) -> None:
    """Run Flower's process of one message at a node.

    Its own script imports the SuperNode too, web server and database, for nothing: half of the CPU time that a process
    takes before it has a message. Here the package in which both lie is an empty one.
    """
    from flwr import supernode

    name = "flwr.supernode.cli"
    sys.modules[name] = package = ModuleType(name)
    package.__path__ = [f"{folder}/cli" for folder in supernode.__path__]
    sys.argv = [CLIENT_APP, *arguments]
    sys.exit(importlib.import_module(f"{name}.flwr_clientapp").flwr_clientapp())


class PrivateStart:
    """Stands for the module ``subprocess`` where Flower starts the process of a task."""

    def __init__(self, subprocess: Any) -> None:
        self._start = subprocess.Popen
        self._started: list[Any] = []
        self.DEVNULL = subprocess.DEVNULL

    def Popen(self, command: Sequence[str], **options: Any) -> Any:  # noqa: N802 (Python's name)
        """Start a program whose ``--token`` becomes a ``--token-file``: one that is open and has no name.

        The process of a message at a node is started by this file.

        Raises
        ------
        RuntimeError
            If there is no ``--token``.
        """
        if "--token" not in command[:-1]:
            raise RuntimeError(f"this version of Flower starts {command[0]} in a way that Winnow does not know")
        place = command.index("--token")
        with tempfile.TemporaryFile() as file:
            file.write(command[place + 1].encode())
            file.seek(0)  # which flushes it
            private = [*command[:place], "--token-file", f"/dev/fd/{file.fileno()}", *command[place + 2 :]]
            if command[0] == CLIENT_APP:
                private = [sys.executable, "-P", __file__, *private]
            process = self._start(private, pass_fds=(file.fileno(),), **options)
        self._started.append(process)
        return process

    def running(self) -> int:
        """Return how many of the started processes have not ended."""
        self._started = [process for process in self._started if process.poll() is None]
        return len(self._started)


PROGRAMS: dict[str, Callable[..., None]] = {
    SUPERLINK: run_superlink,
    EXECUTOR: run_executor,
    SUPERNODE: run_supernode,
    CLIENT_APP: run_client_app,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
