"""Nothing that a command starts may survive it, and a stop signal may come at any moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

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
