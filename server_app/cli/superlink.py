"""SuperLink of a run: a local one for a simulation, or the connection to one that others run.

``flwr run`` alone leaves a daemon behind, found again by its port only, whatever its code, folder or environment.
Here SuperLink and SuperExec are children of this process, each leading a session that holds all that it starts; their
programs, folder, port and environment variables are those of one run. A SuperLink of others may be restarted while we
wait, and is not ours to end.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from server_app.cli import guarded
from server_app.cli.access import TOKEN, admits, credentials, secret_file, token_in, trouble, why_refused
from server_app.cli.config import CommandError
from server_app.cli.environment import check_proxies, environment, short_temporary_folder
from server_app.cli.keys import KeyFolder
from server_app.cli.processes import POLL_SECONDS, ProcessGroup, signals_deferred, watched

CONNECTION = "winnow"
START_SECONDS = 60.0
PATIENCE = 300.0  # seconds that a lost SuperLink is waited for
RECONNECT_SECONDS = 2.0
KNOWN_KEY = "already in use"  # in Flower's words


class SuperLinkError(RuntimeError):
    """Flower's own processes do not work; the message holds what they wrote."""


def program_path(name: str) -> str:
    """Return the path of a Flower program of this installation.

    Raises
    ------
    SuperLinkError
        If it is not there.
    """
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise SuperLinkError(f"{path} is missing: reinstall with  pip install -e '.[simulation]'")
    return str(path)


def free_port() -> int:
    """Return a loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say of what cannot be written in the block where it should be, and what to do.

    Raises
    ------
    SuperLinkError
        Instead of OSError.
    """
    try:
        yield
    except OSError as error:
        remedy = "free space there, or set TMPDIR to another short folder"
        raise SuperLinkError(f"cannot write into {folder}: {error.strerror}; {remedy}") from error


@dataclass(frozen=True)
class Connection:
    """A running SuperLink. ``environment`` makes every Flower program of this installation use it by default.

    ``authority`` is the certificate by which the SuperLink is recognised, None where it speaks plain HTTP; the
    servers started here write into ``logs``, None = ``home``. The SuperLink started here serves only those who have the
    ``token``, the name of a file: Flower's programs of this run.
    """

    home: Path
    address: str
    environment: Mapping[str, str]
    processes: ProcessGroup
    authority: Path | None = None
    logs: Path | None = None
    token: Path | None = None

    @property
    def folder(self) -> Path:
        """The neutral working directory, empty."""
        return self.home / "cwd"

    def check(self) -> None:
        """Raise :class:`SuperLinkError` if the SuperLink or its SuperExec has ended."""
        for name, program in zip((guarded.SUPERLINK, guarded.EXECUTOR), self.processes.programs, strict=False):
            if program.poll() is not None:
                raise SuperLinkError(f"{name} ended with exit code {program.returncode}:\n{self.last_lines(name)}")

    def last_lines(self, name: str, count: int = 15) -> str:
        """Return the end of what a program wrote."""
        return "\n".join(self.log_file(name).read_text(errors="replace").splitlines()[-count:])

    def log_file(self, name: str) -> Path:
        """Return where a server started here writes."""
        return (self.logs or self.home) / f"{name}.log"

    def serve(self, program: str, *arguments: str, name: str = "") -> "subprocess.Popen[str]":
        """Start a server whose output is added to the log file ``name``, by default the program's name.

        The SuperLink and executors are started by guarded.py, which keeps other users of the machine out.
        """
        command = [program_path(program), *arguments]
        if program in guarded.PROGRAMS:
            opened = [str(self.token)] if program == guarded.SUPERLINK else []
            command = [sys.executable, "-P", guarded.__file__, program, *opened, *arguments]
        with self.log_file(name or program).open("a") as output:
            return self.processes.start(command, self.environment, self.folder, output)

    def prepare(self) -> None:
        """Make the working directory, and tell Flower's programs where the SuperLink is."""
        trust = {"insecure": True} if self.authority is None else {"root-certificates": str(self.authority)}
        settings = {"default": CONNECTION, CONNECTION: {"address": self.address, **trust}}
        with writing(self.home):
            self.folder.mkdir()
            (self.home / "config.toml").write_text(tomli_w.dumps({"superlink": settings}))
            if self.token is not None:
                (self.home / "credentials.yaml").write_text(credentials(self.address, token_in(self.token)))

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
            If it ends, does not answer within a minute, or serves those who do not have its token.
        """
        deadline = time.monotonic() + START_SECONDS
        while trouble(self.address, self.authority):
            self.check()
            if time.monotonic() > deadline:
                lines = self.last_lines("flower-superlink")
                raise SuperLinkError(f"flower-superlink did not answer within {START_SECONDS:g} s:\n{lines}")
            time.sleep(POLL_SECONDS)
        if admits(self.address, self.authority):
            text = "the SuperLink would serve every user of this machine: winnow does not know this version of Flower"
            raise SuperLinkError(f"{text}; install one that fits:  pip install -e '.[simulation]'")


@contextmanager
def flower_home() -> Iterator[tuple[Path, ProcessGroup]]:
    """Make a folder for Flower and a group for its processes; at the end of the block both are gone.

    Raises
    ------
    SuperLinkError
        If a process cannot be ended.
    CommandError
        If there is no place for it, or Flower cannot use the proxies of the environment.
    """
    check_proxies()
    home = short_temporary_folder()
    with ExitStack() as stack:
        try:
            processes = stack.enter_context(watched(home))
        except OSError as error:
            shutil.rmtree(home, ignore_errors=True)
            raise SuperLinkError(str(error)) from error
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
        ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(secret_file(home / "ray.token"))}
        variables, token = environment(home, {**ray, **(extra or {})}), secret_file(home / TOKEN)
        keys = KeyFolder(home / "keys")
        keys.create([], [])
        link = Connection(home, f"127.0.0.1:{free_port()}", variables, processes, keys.authority, token=token)
        start_servers(link, keys, "--simulation")
        yield link


def start_servers(link: Connection, keys: KeyFolder, *options: str) -> None:
    """Start a SuperLink and its executor; each proves to the other who it is, so nobody else can stand at its port."""
    link.prepare()
    host, port = link.address.split(":")
    secret = ("--superexec-auth-secret-file", str(keys.superlink("secret")))
    where = ("--host", host, "--port", port, "--isolation", "process")
    link.serve("flower-superlink", *where, *proofs(keys), *secret, *options)
    trust = ("--root-certificates", str(keys.authority))
    link.serve("flower-superexec", *trust, "--runtime-api-address", link.address, *secret)


def proofs(keys: KeyFolder) -> tuple[str, ...]:
    """Return the options by which a server of Flower on this machine proves that it is the right one."""
    certificate, key = ("--ssl-certfile", str(keys.superlink("crt"))), ("--ssl-keyfile", str(keys.superlink("key")))
    return ("--ssl-ca-certfile", str(keys.authority), *certificate, *key)


@dataclass(frozen=True)
class RemoteConnection(Connection):
    """A SuperLink that others run."""

    def check(self) -> None:
        """Do nothing: an outage may end, and :meth:`ask` waits for that."""

    def wait_until_ready(self) -> None:
        """Check that the SuperLink answers, is the right one and lets us ask.

        Raises
        ------
        SuperLinkError
            With the reason, if not.
        """
        if reason := trouble(self.address, self.authority):
            raise SuperLinkError(f"no connection to the SuperLink at {self.address}: {reason}")
        if reason := why_refused(self.address, self.authority, self.token):
            raise SuperLinkError(f"the SuperLink at {self.address} {reason}")

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Run a ``flwr`` command and return its reply; what only asks waits up to five minutes for a lost SuperLink.

        Raises
        ------
        SuperLinkError
            If the reply is an error, or none comes.
        """
        deadline = time.monotonic() + (PATIENCE if arguments[0] == "ls" else 0.0)
        was_there = said = False
        while True:
            try:
                return super().ask(*arguments)
            except SuperLinkError:
                reason = trouble(self.address, self.authority)
                if time.monotonic() > deadline or (was_there and not reason):
                    raise
                was_there = not reason  # it may have come back just now, so the request deserves one more try
                if reason and not said:
                    print(f"The SuperLink at {self.address} does not answer: {reason}. Waiting for it ...", flush=True)
                    said = True
                time.sleep(RECONNECT_SECONDS)

    def register(self, public_key: Path) -> str:
        """Admit the node with this key and return its id, or an empty string if it was admitted before.

        Raises
        ------
        SuperLinkError
            If the SuperLink refuses, or the file is not a public key.
        """
        try:
            reply = self.ask("supernode", "register", str(public_key), CONNECTION, "--name", public_key.stem)
        except SuperLinkError as error:
            if KNOWN_KEY in str(error):
                return ""
            raise
        return str(reply["node-id"])


@contextmanager
def remote_superlink(address: str, authority: Path) -> Iterator[RemoteConnection]:
    """Connect to the SuperLink at ``host:port``, recognised by the certificate ``authority``.

    ``$WINNOW_SUPERLINK_TOKEN`` names the file with the token of one that is run by guarded.py; by default it is
    ``operator.token`` beside ``authority``, if that is there.

    Raises
    ------
    CommandError
        If there is no such certificate or token.
    SuperLinkError
        If it does not answer.
    """
    try:
        ssl.create_default_context(cafile=str(authority))
    except OSError as error:
        remedy = "name the federation's ca.crt with --root-certificates"
        raise CommandError(f"no certificate {authority}: {remedy} ({error.strerror or error})") from error
    named = os.environ.get("WINNOW_SUPERLINK_TOKEN")
    beside = KeyFolder(authority.absolute().parent).operator
    token = Path(named).absolute() if named else beside if beside.is_file() else None
    if token is not None and not token.is_file():
        raise CommandError(f"WINNOW_SUPERLINK_TOKEN: no such file: {token}")
    with flower_home() as (home, processes):
        link = RemoteConnection(home, address, environment(home, {}), processes, authority.absolute(), token=token)
        link.prepare()
        link.wait_until_ready()
        yield link
