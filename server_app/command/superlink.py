"""A Flower SuperLink: the connection to one, and one for a simulation that is ended with all that it started.

``flwr run`` alone leaves a daemon behind, found again by its port only, whatever its code, folder or environment.
Here SuperLink and SuperExec are children of this process, each leading a session that holds all that it starts.
"""

import json
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from server_app.command.environment import SuperLinkError, environment, free_port, program_path, short_temporary_folder
from server_app.command.processes import POLL_SECONDS, ProcessGroup, signals_deferred

CONNECTION = "winnow"
START_SECONDS = 60.0


@dataclass(frozen=True)
class Connection:
    """A running SuperLink. ``environment`` makes every Flower program of this installation use it by default.

    ``authority`` is the certificate by which the SuperLink is recognised, None where it speaks plain HTTP; the
    servers started here write into ``logs``, None = ``home``.
    """

    home: Path
    address: str
    environment: Mapping[str, str]
    processes: ProcessGroup
    authority: Path | None = None
    logs: Path | None = None

    @property
    def folder(self) -> Path:
        """The neutral working directory, empty."""
        return self.home / "cwd"

    def check(self) -> None:
        """Raise :class:`SuperLinkError` if the SuperLink or its SuperExec has ended."""
        for program in self.processes.programs[:2]:
            if program.poll() is not None:
                name = Path(str(program.args[0])).name if isinstance(program.args, list) else str(program.args)
                raise SuperLinkError(f"{name} ended with exit code {program.returncode}:\n{self.last_lines(name)}")

    def last_lines(self, name: str, count: int = 15) -> str:
        """Return the end of what a program wrote."""
        return "\n".join(self.log_file(name).read_text(errors="replace").splitlines()[-count:])

    def log_file(self, name: str) -> Path:
        """Return where a server started here writes."""
        return (self.logs or self.home) / f"{name}.log"

    def serve(self, program: str, *arguments: str, name: str = "") -> "subprocess.Popen[str]":
        """Start a server whose output is added to the log file ``name``, by default the program's name."""
        with self.log_file(name or program).open("a") as output:
            command = [program_path(program), *arguments]
            return self.processes.start(command, self.environment, self.folder, output)

    def prepare(self) -> None:
        """Make the working directory, and tell Flower's programs where the SuperLink is."""
        self.folder.mkdir()
        trust = {"insecure": True} if self.authority is None else {"root-certificates": str(self.authority)}
        settings = {"default": CONNECTION, CONNECTION: {"address": self.address, **trust}}
        (self.home / "config.toml").write_text(tomli_w.dumps({"superlink": settings}))

    def start(self, name: str, *arguments: str, errors: int = subprocess.STDOUT) -> "subprocess.Popen[str]":
        """Start a Flower program whose output the caller reads; it ends with the SuperLink at the latest."""
        command = [program_path(name), *arguments]
        return self.processes.start(command, self.environment, self.folder, subprocess.PIPE, errors)

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Run a ``flwr`` command and return its JSON reply.

        Raises
        ------
        SuperLinkError
            If it replies with an error, or with anything but JSON.
        """
        output, errors = self.start("flwr", *arguments, "--format", "json", errors=subprocess.PIPE).communicate()
        try:
            reply: dict[str, Any] = json.loads(output)
        except json.JSONDecodeError:
            reply = {"error-message": output + errors}
        if not reply.get("success"):
            raise SuperLinkError(f"flwr {arguments[0]}: {str(reply.get('error-message', reply)).strip()}")
        return reply

    def wait_until_ready(self) -> None:
        """Wait until the SuperLink answers.

        Raises
        ------
        SuperLinkError
            If it ends, or does not answer within a minute.
        """
        deadline = time.monotonic() + START_SECONDS
        while trouble(self.address, self.authority):
            self.check()
            if time.monotonic() > deadline:
                lines = self.last_lines("flower-superlink")
                raise SuperLinkError(f"flower-superlink did not answer within {START_SECONDS:g} s:\n{lines}")
            time.sleep(POLL_SECONDS)


@contextmanager
def flower_home() -> Iterator[tuple[Path, ProcessGroup]]:
    """Make a folder for Flower and a group for its processes; at the end of the block both are gone.

    Raises
    ------
    SuperLinkError
        If a process cannot be ended.
    """
    home = short_temporary_folder()
    processes = ProcessGroup()
    try:
        yield home, processes
    finally:
        with signals_deferred():
            survivors = processes.stop()
            shutil.rmtree(home, ignore_errors=True)
        if survivors:
            raise SuperLinkError(f"these processes could not be ended: {', '.join(map(str, survivors))}")


@contextmanager
def local_superlink(extra: Mapping[str, str] | None = None) -> Iterator[Connection]:
    """Run a simulating SuperLink while the block runs; ``extra`` are more environment variables.

    It is being started when the block begins: call :meth:`Connection.wait_until_ready` before using it.

    Raises
    ------
    SuperLinkError
        If Flower is not installed, or a process cannot be ended.
    """
    with flower_home() as (home, processes):
        connection = Connection(home, f"127.0.0.1:{free_port()}", environment(home, extra or {}), processes)
        _start(connection)
        yield connection


def _start(connection: Connection) -> None:
    connection.prepare()
    host, port = connection.address.split(":")
    connection.serve(
        "flower-superlink", "--insecure", "--simulation", "--isolation", "process", "--host", host, "--port", port
    )
    connection.serve("flower-superexec", "--insecure", "--runtime-api-address", connection.address)


def trouble(address: str, authority: Path | None) -> str:
    """Return why no server answers at ``host:port``, or an empty string if one does and proves to be the right one."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    try:
        if authority is not None:
            context = ssl.create_default_context(cafile=str(authority))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        direct = urllib.request.build_opener(*handlers)
        with direct.open(f"http{'s' if authority else ''}://{address}/health", timeout=1.0) as reply:
            return "" if reply.status == 200 else f"it answers {reply.status}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except OSError as error:
        return str(error)
