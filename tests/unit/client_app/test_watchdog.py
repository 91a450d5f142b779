"""A real node's process that hangs ends itself and says where; one that is done in time is left alone."""

import subprocess
import sys

import pytest

HANGING = """
import sys, time
from flwr.app import Context, Message, RecordDict
from client_app.mods import watchdog
import tests.messages

def hang_here(message, context):
    time.sleep({seconds})
    return Message(RecordDict(), reply_to=message)

sys.argv[0] = {program!r}
message = Message(RecordDict(), 1, "train", ttl={ttl})
watchdog(message, Context(1, 1, {{}}, RecordDict(), {{}}), hang_here)
time.sleep({afterwards})
print("done", flush=True)
"""


def played(
    seconds: float, ttl: float, afterwards: float = 0.0, program: str = "/opt/venv/bin/flwr-clientapp"
) -> "subprocess.CompletedProcess[str]":
    source = HANGING.format(seconds=seconds, ttl=ttl, afterwards=afterwards, program=program)
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False)


def test_a_process_that_hangs_ends_and_shows_where() -> None:
    ended = played(seconds=1000, ttl=0.2)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Timeout (0:00:00.400000)!")
    assert "in hang_here" in ended.stderr


@pytest.mark.parametrize(("seconds", "ttl", "afterwards"), [(0.0, 60.0, 0.0), (0.0, 0.3, 1.0)])
def test_work_that_is_done_in_time_is_left_alone(seconds: float, ttl: float, afterwards: float) -> None:
    ended = played(seconds, ttl, afterwards)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


def test_a_process_that_is_not_for_one_message_is_never_ended() -> None:
    ended = played(seconds=1.0, ttl=0.1, program="/usr/bin/python")
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
