"""Waiting for what a test wants to see, and a run that is followed while the test does something else."""

import re
import threading
import time
from collections.abc import Callable
from io import StringIO
from typing import TypeVar

from server_app.cli.run import watch
from server_app.cli.run_log import RunLog
from server_app.cli.superlink import RemoteConnection
from tests.integration.conftest import Played

PATIENCE = 600.0
Seen = TypeVar("Seen")


def wait_for(look: Callable[[], Seen | None], what: str, patience: float = PATIENCE) -> Seen:
    """Look until something true is seen, and return it."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {patience:g} s for: {what}"
        time.sleep(0.1)
    return seen


class FollowedRun:
    """A submitted run, followed in the background as ``winnow federation follow`` does."""

    def __init__(self, link: RemoteConnection, run_id: str) -> None:
        self.run_id = run_id
        self._link = link
        self._out = StringIO()
        self._log = RunLog(out=self._out)
        self._ending: tuple[str, str] = ("", "")
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        self._ending = watch(self._link, self.run_id, self._log)

    @property
    def output(self) -> str:
        """What the operator has seen so far."""
        return self._out.getvalue()

    def wait_for_line(self, pattern: str, patience: float = PATIENCE) -> str:
        """Wait until a line of the output matches, and return what matched."""
        found = wait_for(lambda: re.search(pattern, self.output, re.MULTILINE), f"the line {pattern}", patience)
        return found[0]

    @property
    def record(self) -> Played:
        """The run directory, once there is one."""
        return Played(wait_for(lambda: self._log.run_directory, "a run directory"))

    def end(self, patience: float = 900) -> tuple[str, str]:
        """Wait for the end of the run and return its status in Flower's words, with details."""
        self._thread.join(patience)
        assert not self._thread.is_alive(), f"the run has not ended:\n{self.output}"
        return self._ending
