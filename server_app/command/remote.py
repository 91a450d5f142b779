"""The connection to a SuperLink that others run: it may be restarted while we wait, and it is not ours to end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server_app.command.configuration import CommandError
from server_app.command.environment import SuperLinkError, environment
from server_app.command.superlink import CONNECTION, Connection, flower_home, trouble

PATIENCE = 300.0
POLL_SECONDS = 2.0
KNOWN_KEY = "already in use"


@dataclass(frozen=True)
class RemoteConnection(Connection):
    """A SuperLink somewhere else."""

    def check(self) -> None:
        """Do nothing: an outage may end, and :meth:`ask` waits for that."""

    def wait_until_ready(self) -> None:
        """Check that the SuperLink answers and is the right one.

        Raises
        ------
        SuperLinkError
            With the reason, if not.
        """
        if reason := trouble(self.address, self.authority):
            raise SuperLinkError(f"no connection to the SuperLink at {self.address}: {reason}")

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Run a ``flwr`` command and return its reply; what only asks waits up to five minutes for a lost SuperLink.

        Raises
        ------
        SuperLinkError
            If the reply is an error, or none comes.
        """
        deadline = time.monotonic() + (PATIENCE if arguments[0] == "ls" else 0.0)
        was_there = told = False
        while True:
            try:
                return super().ask(*arguments)
            except SuperLinkError:
                reason = trouble(self.address, self.authority)
                if time.monotonic() > deadline or (was_there and not reason):
                    raise
                was_there = not reason  # it may have come back just now, so the request deserves one more try
                if reason and not told:
                    print(f"The SuperLink at {self.address} does not answer: {reason}. Waiting for it ...", flush=True)
                    told = True
                time.sleep(POLL_SECONDS)

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

    Raises
    ------
    CommandError
        If there is no such certificate.
    SuperLinkError
        If it does not answer.
    """
    if not authority.is_file():
        raise CommandError(f"no certificate {authority}: name the federation's ca.crt with --root-certificates")
    with flower_home() as (home, processes):
        link = RemoteConnection(home, address, environment(home, {}), processes, authority.absolute())
        link.prepare()
        link.wait_until_ready()
        yield link
