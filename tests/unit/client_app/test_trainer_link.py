"""Trainer process of a node: found again, never two, never with old code, gone with its executor; of a stand-in."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from client_app.trainer_link import (
    RAISED,
    NoTrainerError,
    TrainerFailedError,
    TrainerLink,
    TrainerLostError,
    fingerprint,
    idle_seconds,
    is_own,
)
from tests.conftest import ROOT

STAND_IN = """
import os, signal, time
from pathlib import Path

def answer(parts):
    if parts[0] == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if parts[0] == b"freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if parts[0] == b"wait":
        Path(__file__).with_name("waits").touch()
        time.sleep(60)
    if parts[0] == b"raise":
        raise ValueError("/srv/clinic/mr smith.png")
    return [str(os.getpid()).encode(), b"first edition", *parts]
"""
THIN = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {folder!r}]
from client_app.trainer_link import TrainerLink
print(TrainerLink(Path({place!r}), "a", "stand_in:answer").ask([{said!r}])[0].decode())
"""


def lives(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def soon(seen: Callable[[], bool]) -> bool:
    """Tell whether something comes true within a time that is long even on a busy machine."""
    deadline = time.monotonic() + 20
    while not (found := seen()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainerLink]:
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = TrainerLink(tmp_path / ("long" * 30) / "trainer", "a", "stand_in:answer")
    yield found
    if (pid := (found.folder / "lock").read_text() if found.folder.is_dir() else "") and lives(int(pid)):
        os.kill(int(pid), signal.SIGKILL)


def test_the_next_message_is_answered_by_the_same_process(link: TrainerLink) -> None:
    large = os.urandom(3_000_000)
    [pid, edition, *sent] = link.ask([b"x", large, b""])
    assert (edition, sent) == (b"first edition", [b"x", large, b""])
    assert link.ask([b"y"])[0] == pid != str(os.getpid()).encode()
    assert (link.folder / "lock").read_bytes() == pid
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (link.folder, link.folder / "socket", link.folder / "lock")]
    assert modes == [0o700, 0o600, 0o600], "nobody else may connect"


def test_many_at_once_get_one_trainer(link: TrainerLink) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda name: link.ask([name]), [b"%d" % number for number in range(6)]))
    assert [answer[2] for answer in answers] == [b"%d" % number for number in range(6)]
    assert len({answer[0] for answer in answers}) == 1


def test_with_another_fingerprint_the_old_one_ends_before_the_new_one_starts(link: TrainerLink) -> None:
    old = int(link.ask([b"x"])[0])
    new = int(replace(link, fingerprint="b").ask([b"x"])[0])
    assert new != old
    assert not lives(old)


def test_code_that_has_changed_is_not_run_any_more(link: TrainerLink, tmp_path: Path) -> None:
    assert link.ask([b"x"])[1] == b"first edition"
    (tmp_path / "stand_in.py").write_text(STAND_IN.replace("first edition", "second"))
    assert link.ask([b"x"])[1] == b"second", "the fingerprint of the app knows nothing of a plug-in elsewhere"


def test_one_that_dies_in_a_message_is_replaced_in_the_next(link: TrainerLink) -> None:
    old = link.ask([b"x"])[0]
    with pytest.raises(TrainerLostError, match="has ended"):
        link.ask([b"die"])
    new = link.ask([b"x"])[0]
    assert new != old
    with pytest.raises(TrainerLostError, match="SIGKILL"):
        replace(link, fingerprint="b").ask([b"die"])  # started by this process, which so knows how it ended


def test_one_that_stands_still_is_killed(link: TrainerLink) -> None:
    old = int(link.ask([b"x"])[0])
    hasty = replace(link, patience=0.5)
    with pytest.raises(TrainerLostError, match=r"0\.5 s"):
        hasty.ask([b"freeze"])
    assert soon(lambda: not lives(old))
    between = int(link.ask([b"x"])[0])
    os.kill(between, signal.SIGSTOP)
    assert int(replace(link, patience=2.0).ask([b"x"])[0]) != between, "also between two messages"
    assert not lives(between)


def test_an_error_is_told_by_its_kind_and_the_process_stays(link: TrainerLink) -> None:
    before = link.ask([b"x"])[0]
    with pytest.raises(TrainerFailedError) as caught:
        link.ask([b"raise"])
    assert (str(caught.value), caught.value.state) == ("ValueError: see the log of the node", RAISED)
    assert link.ask([b"x"])[0] == before
    with pytest.raises(TrainerFailedError, match="ModuleNotFoundError"):
        replace(link, fingerprint="b", target="nothing:here").ask([b"x"])


def test_without_work_it_ends(link: TrainerLink) -> None:
    pid = int(replace(link, idle=0.05).ask([b"x"])[0])
    assert soon(lambda: not lives(pid))


def thin(link: TrainerLink, tmp_path: Path, said: str) -> str:
    """The program of a process that asks and ends, as the one that Flower starts for a message."""
    return THIN.format(root=str(ROOT), folder=str(tmp_path), place=str(link.folder), said=said.encode())


def test_it_outlives_the_process_of_the_message_and_ends_with_its_executor(link: TrainerLink, tmp_path: Path) -> None:
    asking = thin(link, tmp_path, "x")
    command = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {asking!r}]); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", command], stdin=pipe, stdout=pipe, text=True) as executor:
        assert executor.stdout is not None
        pid = int(executor.stdout.readline())
        assert link.ask([b"x"])[0] == str(pid).encode()
        executor.kill()
        assert soon(lambda: not lives(pid))


def test_when_nobody_waits_any_more_the_work_is_given_up(link: TrainerLink, tmp_path: Path) -> None:
    pid = int(link.ask([b"x"])[0])
    with subprocess.Popen([sys.executable, "-c", thin(link, tmp_path, "wait")]) as asking:
        assert soon((tmp_path / "waits").exists)
        asking.kill()
        assert soon(lambda: not lives(pid)), "as if the work had been done in the process that was killed"


def test_a_folder_that_others_may_enter_is_not_used(link: TrainerLink, tmp_path: Path) -> None:
    link.folder.mkdir(parents=True)
    link.folder.chmod(0o750)
    with pytest.raises(NoTrainerError, match="not this user's alone"):
        link.ask([b"x"])
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(NoTrainerError, match="link in the state directory"):
        replace(link, folder=tmp_path / "link").ask([b"x"])
    (link.folder / "lock").touch()


def test_processes_of_other_users_are_known_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert is_own(one)
        monkeypatch.setattr(os, "getuid", lambda: 4711)
        assert not is_own(one)


def test_a_fingerprint_follows_code_packages_environment_and_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package").mkdir()
    code, installed = tmp_path / "package/code.py", tmp_path / "torch-2.0.dist-info"
    code.write_text("a = 1")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    seen = [fingerprint(tmp_path, ["node"]), fingerprint(tmp_path, ["node"])]
    assert seen[0] == seen.pop()
    seen.append(fingerprint(tmp_path, ["other"]))
    os.utime(code, ns=(0, 0))
    seen.append(fingerprint(tmp_path, ["node"]))
    installed.mkdir()
    seen.append(fingerprint(tmp_path, ["node"]))
    monkeypatch.setenv("WINNOW_DATA", "/elsewhere")
    seen.append(fingerprint(tmp_path, ["node"]))
    assert len(set(seen)) == 5


@pytest.mark.parametrize("value", [-1, "soon", True, float("nan"), float("inf")])
def test_the_idle_time_is_a_number_of_minutes(value: object) -> None:
    assert [idle_seconds({}), idle_seconds({"trainer-idle": 2}), idle_seconds({"trainer-idle": 0})] == [900, 120, 0]
    with pytest.raises(ValueError, match="expected minutes"):
        idle_seconds({"trainer-idle": value})
