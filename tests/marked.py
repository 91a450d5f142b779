"""Processes that carry a mark in their environment, so that a test can tell whether any outlives it."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def marked() -> Iterator[dict[str, str]]:
    """An environment whose mark every descendant inherits; at the end no process may carry it."""
    mark = uuid.uuid4().hex
    yield {**os.environ, "WINNOW_TEST_MARK": mark}
    assert processes_with(mark) == []


def processes_with(mark: str) -> list[str]:
    """Return the command lines of living processes that have inherited ``mark``."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("this system does not show the environment of processes")
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # no process, or ended meanwhile
    return found
