"""Nothing that a command starts may survive it, and a stop signal may come at any moment."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from server_app.cli import processes
from server_app.cli.processes import (
    STOP_SIGNALS,
    ProcessGroup,
    StopRequested,
    processes_in,
    signals_deferred,
    stop_requests,
)
from tests.conftest import ROOT


@pytest.fixture
def group() -> Iterator[ProcessGroup]:
    found = ProcessGroup()
    yield found
    found.stop(grace=0.0)


def shell(group: ProcessGroup, script: str, output: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    return group.start(["sh", "-c", script], dict(os.environ), Path.cwd(), output)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_descendants_are_found_even_after_their_parent_has_died(group: ProcessGroup) -> None:
    parent = shell(group, "sleep 60 & sleep 60 & exit 0")
    assert parent.wait(5) == 0
    orphans = group.members()
    assert len(orphans) == 2
    assert parent.pid not in orphans
    assert group.stop(grace=5.0) == []
    assert group.members() == []


def test_what_ignores_the_request_is_ended_by_force(group: ProcessGroup) -> None:
    stubborn = shell(group, "trap '' TERM; echo ready; while :; do sleep 0.05; done", subprocess.PIPE)
    assert stubborn.stdout is not None
    assert stubborn.stdout.readline() == "ready\n"
    assert group.stop(grace=0.2) == []
    assert stubborn.returncode == -signal.SIGKILL


def test_what_obeys_is_given_the_time_to(group: ProcessGroup) -> None:
    polite = shell(group, "trap 'sleep 0.2; exit 7' TERM; echo ready; while :; do sleep 0.01; done", subprocess.PIPE)
    assert polite.stdout is not None
    assert polite.stdout.readline() == "ready\n"
    assert group.stop(grace=5.0) == []
    assert polite.returncode == 7


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["sh", "-c", "exit 0"], start_new_session=True)
    try:
        assert until(lambda: processes._states().get(child.pid) == "Z")
        assert processes_in({child.pid}) == []
    finally:
        child.wait()


def test_other_sessions_are_left_alone(group: ProcessGroup) -> None:
    shell(group, "sleep 60")
    assert os.getpid() not in group.members()
    assert os.getpid() in processes_in({os.getsid(0)})


def test_ps_says_the_same_as_proc(monkeypatch: pytest.MonkeyPatch, group: ProcessGroup, tmp_path: Path) -> None:
    if not any(Path(folder, "ps").exists() for folder in os.defpath.split(os.pathsep)):
        pytest.skip("this machine has no ps")
    shell(group, "sleep 60 & wait")
    assert until(lambda: len(group.members()) == 2)
    known = group.members()
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert sorted(group.members()) == sorted(known)


@pytest.fixture
def _heeding() -> Iterator[None]:
    """Heed signals as a program in a terminal does: one that runs the tests under nohup has them ignored."""
    before = {each: signal.getsignal(each) for each in STOP_SIGNALS}
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("_heeding")
@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_stop_signal_becomes_one_exception_and_later_ones_are_ignored(signum: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    cleaned: list[signal.Signals] = []

    def work() -> None:
        try:
            signal.raise_signal(signum)
        finally:
            for each in STOP_SIGNALS:
                signal.raise_signal(each)
                cleaned.append(each)

    with pytest.raises(StopRequested) as caught, stop_requests():
        work()
    assert cleaned == list(STOP_SIGNALS)
    assert caught.value.signum == signum
    assert str(caught.value) == signum.name
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT], ids=["nohup", "background job of a script"])
@pytest.mark.parametrize("block", [stop_requests, signals_deferred])
def test_a_signal_that_is_ignored_from_the_start_stays_ignored(
    ignored: signal.Signals, block: Callable[[], AbstractContextManager[None]]
) -> None:
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with block():
            assert signal.getsignal(ignored) is signal.SIG_IGN, "a program started now inherits that"
            signal.raise_signal(ignored)
        with pytest.raises(StopRequested), stop_requests(), block():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(ignored) is signal.SIG_IGN
    finally:
        signal.signal(ignored, before)


def test_deferred_signals_arrive_after_the_block() -> None:
    done: list[str] = []

    def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        done.append("after the signal")

    with pytest.raises(StopRequested), stop_requests(), signals_deferred():
        work()
    assert done == ["after the signal"]


def test_deferring_without_a_signal_changes_nothing() -> None:
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with signals_deferred():
        pass
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_what_programs_write_is_read_as_utf_8_whatever_the_locale() -> None:
    code = """
import os, pathlib, subprocess
from server_app.cli.processes import ProcessGroup
command = ["sh", "-c", r"printf 'Z\\303\\274rich \\377'"]
program = ProcessGroup().start(command, dict(os.environ), pathlib.Path.cwd(), subprocess.PIPE)
print(ascii(program.communicate()[0]))
"""
    plain = {"PATH": os.defpath, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=plain, capture_output=True, check=True)
    assert found.stdout == b"'Z\\xfcrich \\ufffd'\n"


def test_a_program_started_here_does_not_hear_ctrl_c_but_obeys_sigterm(group: ProcessGroup) -> None:
    code = "import signal, time; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, flush=True); time.sleep(60)"
    program = group.start([sys.executable, "-c", code], dict(os.environ), Path.cwd(), subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == "False\n"
    assert os.getpgid(program.pid) != os.getpgid(0)
    group.stop(grace=5.0)
    assert program.returncode == -signal.SIGTERM


OWNER = """
import os, sys
from pathlib import Path
from server_app.cli.processes import watched
with watched(Path(sys.argv[1])) as group:
    group.start(["sh", "-c", sys.argv[2]], dict(os.environ), Path.cwd(), 1)
    sys.stdin.read()
"""


def owner(home: Path, script: str) -> "subprocess.Popen[str]":
    """Start a command that owns ``home`` and a program, and wait until that program has said that it runs."""
    pipe = subprocess.PIPE
    found = subprocess.Popen([sys.executable, "-c", OWNER, str(home), script], stdin=pipe, stdout=pipe, text=True)
    assert found.stdout is not None
    assert found.stdout.readline() == "ready\n"
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of a command, in a temporary folder of its own."""
    found = tmp_path / "winnow-test"
    found.mkdir(mode=0o700)
    return found


@pytest.mark.parametrize("script", ["echo ready; exec sleep 60", "trap '' HUP; sleep 60 & echo ready; kill -9 $$"])
def test_what_a_killed_command_leaves_ends_and_its_folder_goes(home: Path, script: str) -> None:
    command = owner(home, script)
    assert processes.leftovers([str(home.parent)]) == {}, "the folder is in use"
    assert until(lambda: len(processes.noted_processes(home)) == 1), "a shell that has killed itself may take a moment"
    left = processes.noted_processes(home)
    command.kill()
    assert until(lambda: not home.exists(), 20.0)
    assert [pid for pid in left if Path(f"/proc/{pid}").exists() and processes._states().get(pid) != "Z"] == []
    command.communicate()


def test_a_command_that_ends_by_itself_has_its_watchdog_ended_too(home: Path) -> None:
    with processes.watched(home) as group:
        program = group.start(["sleep", "60"], dict(os.environ), Path.cwd(), subprocess.DEVNULL)
        assert program.args == ["sleep", "60"]
        assert until(lambda: processes.noted_processes(home) != [])
        assert group.members() == processes.noted_processes(home) == [program.pid]
        assert group.stop() == []
        (home / "kept").touch()
    assert not home.exists(), "what the command has left there is the watchdog's"


def test_the_watchdog_has_ended_also_after_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watchdogs: list[subprocess.Popen[bytes]] = []

    class Seen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            watchdogs.append(self)

    def work() -> None:
        with processes.watched(home):
            assert watchdogs[0].poll() is None
            raise KeyError

    monkeypatch.setattr(subprocess, "Popen", Seen)
    with pytest.raises(KeyError):
        work()
    assert watchdogs[0].returncode == 0
    assert not home.exists()


def test_a_program_whose_command_is_killed_at_once_has_been_noted(home: Path) -> None:
    """Until it is noted, a program holds the lock that the watchdog waits for."""
    lock = processes._lock(home, os.O_CREAT)
    group = ProcessGroup((home, lock))
    os.mkfifo(home / "sessions")  # the shell waits there, as one that the machine has not come to yet
    program = group.start(["sleep", "60"], dict(os.environ), Path.cwd(), subprocess.DEVNULL)
    os.close(lock)
    try:
        assert processes.leftovers([str(home.parent)]) == {}
        with (home / "sessions").open() as noted:
            assert noted.read() == f"{program.pid}\n"
        (home / "sessions").unlink()
        assert until(lambda: processes.leftovers([str(home.parent)]) == {home: []}), (
            "the program itself does not hold it"
        )
    finally:
        group.stop(grace=0.0)


def test_a_folder_that_nobody_locks_is_a_leftover_with_its_processes(home: Path, tmp_path: Path) -> None:
    (tmp_path / "winnow-file").touch()
    (tmp_path / "winnow-link").symlink_to(home)
    (tmp_path / "other").mkdir()
    assert processes.leftovers([str(home.parent)]) == {home: []}
    (home / "lock").touch()
    program = subprocess.Popen(["sleep", "60"], env={"WINNOW_HOME": str(home)}, start_new_session=True)
    try:
        (home / "sessions").write_text(f"{program.pid}\n{2**22 + 1}\n")
        assert until(lambda: processes.leftovers([str(home.parent)]) == {home: [program.pid]})
    finally:
        program.kill()
        program.wait()


def test_a_number_that_is_used_again_is_no_leftover(home: Path) -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("this system does not show the environment of processes")
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (home / "sessions").write_text(f"{stranger.pid}\n")
        assert until(lambda: processes.leftovers([str(home.parent)]) == {home: []})
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
def test_another_user_s_folder_is_none_of_ours(home: Path) -> None:
    os.chown(home, 12345, 12345)
    assert processes.leftovers([str(home.parent)]) == {}


def test_a_disk_without_locks_is_an_error_that_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(processes.fcntl, "flock", flock)
    with pytest.raises(OSError, match="set TMPDIR to a folder on a local disk"), processes.watched(home):
        pass
