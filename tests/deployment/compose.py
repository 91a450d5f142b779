"""Docker compose in a copy of the checkout, and what tests ask of its containers."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

PATIENCE = 400.0  # seconds: every message is a new process in a container with limits
Seen = TypeVar("Seen")
REACH = """
import concurrent.futures, socket, sys
def reached(target):
    try:
        socket.create_connection(target.split(":"), 3).close()
        return True
    except OSError:
        return False
with concurrent.futures.ThreadPoolExecutor(len(sys.argv)) as pool:
    print(*(target for target, yes in zip(sys.argv[1:], pool.map(reached, sys.argv[1:])) if yes))
"""


def wait_for(look: Callable[[], Seen | None], what: str) -> Seen:
    """Look until something true is seen, and return it; a look at a container costs enough for one a second."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for: {what}"
        time.sleep(1.0)
    return seen


@dataclass(frozen=True)
class Compose:
    """A copy of the checkout with keys, and compose in it, under a project name of its own."""

    folder: Path
    environment: dict[str, str]

    @property
    def project(self) -> str:
        """What the names of its containers and networks begin with."""
        return self.environment["COMPOSE_PROJECT_NAME"]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a compose command whose output, both streams, the caller reads."""
        command = ["docker", "compose", *arguments]
        pipe, out = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=out, text=True)

    def run(self, *arguments: str, check: bool = True, timeout: float = 400) -> "subprocess.CompletedProcess[str]":
        """Run a compose command and return what it printed, on both streams."""
        program = self.start(*arguments)
        try:
            output = program.communicate(timeout=timeout)[0]
        finally:
            program.kill()
        assert not check or program.returncode == 0, output
        return subprocess.CompletedProcess(program.args, program.returncode, output)

    def logs(self, service: str) -> str:
        """Return all that a service has printed, over restarts."""
        return self.run("logs", "--no-color", "--no-log-prefix", service).stdout

    def python(self, service: str, script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """Run Python code in a service's container."""
        return self.run("exec", "-T", service, "python", "-c", script, *map(str, arguments), check=False)

    def addresses(self, service: str) -> list[str]:
        """Return a service's addresses, one on each of its networks."""
        return [network["IPAddress"] for network in self.inspect(service)["NetworkSettings"]["Networks"].values()]

    def reached(self, service: str, *targets: str) -> set[str]:
        """Return those of the ``host:port`` to which a connection from a service's container succeeds."""
        found = self.python(service, REACH, *targets)
        assert found.returncode == 0, found.stdout
        return set(found.stdout.split())

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows about a service's container."""
        name = self.run("ps", "--all", "--quiet", service).stdout.split()[-1]
        [found] = json.loads(subprocess.check_output(["docker", "inspect", name]))
        return dict(found)

    def network(self, action: str, network: str, service: str) -> None:
        """Connect a service's container to one of the project's networks, or disconnect it."""
        command = ["docker", "network", action, f"{self.project}_{network}", self.inspect(service)["Id"]]
        subprocess.run(command, check=True, capture_output=True)
