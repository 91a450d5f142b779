"""A run that is submitted to containers and followed while a test does something to them."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.deployment.compose import PATIENCE, Compose, wait_for


@contextmanager
def submitted(compose: Compose, *settings: str) -> Iterator["SubmittedRun"]:
    """Submit a run and follow it in the background; what has not ended with the block is stopped."""
    run = SubmittedRun(compose, compose.start("run", "--rm", "-T", "winnow", "submit", *settings))
    try:
        yield run
    finally:
        if run.program.poll() is None:
            compose.run("run", "--rm", "-T", "winnow", "flwr", "stop", run.number, check=False)
            run.program.wait(120)


class SubmittedRun:
    """A run that ``winnow submit`` follows: what it has printed so far, and the run's records."""

    def __init__(self, compose: Compose, program: "subprocess.Popen[str]") -> None:
        self.program = program
        self.lines: list[str] = []
        self._compose = compose
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.program.stdout is not None
        self.lines.extend(self.program.stdout)

    @property
    def output(self) -> str:
        """All that it has printed."""
        return "".join(self.lines)

    def wait_for_line(self, pattern: str) -> str:
        """Wait until a line matches and return its first group, or all that matched."""

        def look() -> "re.Match[str] | None":
            assert self.program.poll() in (None, 0), self.output
            return re.search(pattern, self.output, re.MULTILINE)

        found = wait_for(look, f"the line {pattern}")
        return found[found.re.groups and 1]

    @property
    def number(self) -> str:
        """The run's number, with which Flower calls it."""
        return self.wait_for_line(r"^Run (\d+) is submitted")

    @property
    def folder(self) -> str:
        """The run directory in the ServerApp's container."""
        return self.wait_for_line(r"^Run directory: (\S+)")

    def records(self, name: str) -> list[dict[str, Any]]:
        """Return the complete lines of a .jsonl file in the run directory."""
        text = self._compose.run("exec", "-T", "serverapp", "cat", f"{self.folder}/{name}").stdout
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def updates(self) -> dict[int, set[int]]:
        """Return whose update counted in each round that is over."""
        found: dict[int, set[int]] = {}
        for row in self.records("clients.jsonl"):
            if row["round"]:
                found.setdefault(row["round"], set()).update([row["client"]] if row["quarantine"] is None else [])
        return found

    def wait_for_round_without(self, client: int) -> int:
        """Wait until a round is over in which a client's update did not count, and return the round."""

        def look() -> int:
            return min((number for number, clients in self.updates().items() if client not in clients), default=0)

        return wait_for(look, f"a round without client {client}")

    def wait_for_return(self, client: int, after: int) -> None:
        """Wait until a client's update counts in a round after that one."""
        wait_for(
            lambda: any(client in clients for number, clients in self.updates().items() if number > after),
            f"client {client} after round {after}",
        )

    def end(self) -> str:
        """Wait for the end of a run that must complete, and return all that was printed."""
        assert self.program.wait(PATIENCE) == 0, self.output
        self._reader.join()
        return self.output
