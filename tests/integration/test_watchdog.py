"""Watchdog of the ClientApp: a process for one message that hangs is ended, and any other is left alone."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CASES = {  # seconds of work, the message's ttl, seconds after the answer, the program's name
    "hangs": (1000.0, 0.2, 0.0, "flwr-clientapp"),
    "quick": (0.0, 60.0, 0.0, "flwr-clientapp"),
    "goes on": (0.0, 0.3, 1.0, "flwr-clientapp"),
    "not for one message": (1.0, 0.1, 0.0, "python"),
}
WATCHED = """
import json, os, sys, time
from flwr.app import Context, Message, RecordDict
from client_app.mods import watchdog
import tests.messages

def play(name, seconds, ttl, afterwards, program):
    for stream in (1, 2):
        os.dup2(os.open(f"{name}-{stream}", os.O_CREAT | os.O_WRONLY), stream)

    def hang_here(message, context):
        time.sleep(seconds)
        return Message(RecordDict(), reply_to=message)

    sys.argv[0] = "/opt/venv/bin/" + program
    message = Message(RecordDict(), 1, "train", ttl=ttl)
    watchdog(message, Context(1, 1, {}, RecordDict(), {}), hang_here)
    time.sleep(afterwards)
    print("done", flush=True)

children = []
for name, case in json.loads(sys.argv[1]).items():
    children.append(os.fork())
    if not children[-1]:
        play(name, *case)
        sys.exit()
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""
Ended = dict[str, tuple[int, str, str]]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Exit status, output and errors of a process for each case: forks of one that has imported what they need."""
    folder = tmp_path_factory.mktemp("watched")
    command = [sys.executable, "-c", WATCHED, json.dumps(CASES)]
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=300, check=True)
    told = {name: [(folder / f"{name}-{stream}").read_text() for stream in (1, 2)] for name in CASES}
    return {name: (status, *told[name]) for name, status in zip(CASES, json.loads(done.stdout), strict=True)}


def test_a_process_that_hangs_ends_and_shows_where(ended: Ended) -> None:
    status, output, errors = ended["hangs"]
    assert (status, output) == (1, "")
    assert errors.startswith("Timeout (0:00:00.400000)!")
    assert "in hang_here" in errors


@pytest.mark.parametrize("case", [case for case in CASES if case != "hangs"])
def test_who_is_in_time_or_not_for_one_message_is_left_alone(case: str, ended: Ended) -> None:
    status, output, errors = ended[case]
    assert (status, output) == (0, "done\n"), errors
