"""A folder of label state belongs to one node."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from client_app.node import StateDirError, lock_state_dir
from strategies.validation import one_line

OLD, NEW = 13221729497652991868, 4800910847626579947


def test_a_node_gets_a_folder_and_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "20260101-120000" / "site"
    for _ in range(2):
        lock_state_dir(folder, OLD)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"owner": str(OLD)}


def test_another_node_is_refused_and_told_both_ids_and_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "20260101-120000-2" / "site"
    lock_state_dir(folder, OLD)
    for _ in range(2):
        with pytest.raises(StateDirError) as refused:
            lock_state_dir(folder, NEW)
    told = str(refused.value)
    assert f"nodes {NEW} and {OLD} have the same state directory" in told
    assert "remove 20260101-120000-2/site/owner there" in told
    assert str(tmp_path) not in told
    assert not one_line(f"StateDirError: {told}").endswith("..."), "all of it is shown"
    lock_state_dir(folder, OLD)  # which is not disturbed by the attempt


def test_a_node_with_a_new_key_goes_on_once_the_old_mark_is_removed(tmp_path: Path) -> None:
    lock_state_dir(tmp_path, OLD)
    (tmp_path / "state-3.safetensors").touch()
    (tmp_path / "owner").unlink()
    lock_state_dir(tmp_path, NEW)
    assert (tmp_path / "state-3.safetensors").exists()


def test_of_nodes_that_claim_a_folder_at_the_same_time_exactly_one_gets_it(tmp_path: Path) -> None:
    together = Barrier(4)

    def gets(folder: Path, node: int) -> bool:
        together.wait()
        try:
            lock_state_dir(folder, node)
        except StateDirError:
            return False
        return True

    with ThreadPoolExecutor(4) as nodes:
        for number in range(100):
            folder = tmp_path / f"run-{number}" / "site"
            got = list(nodes.map(gets, [folder] * 4, range(4)))
            assert sum(got) == 1
            assert {path.name: path.read_text() for path in folder.iterdir()} == {"owner": str(got.index(True))}


def test_a_node_that_is_a_moment_too_late_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: str, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        lock_state_dir(tmp_path, OLD)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(StateDirError, match=f"nodes {NEW} and {OLD}"):
        lock_state_dir(tmp_path, NEW)
    lock_state_dir(tmp_path, OLD)


def test_an_attempt_that_was_cut_off_locks_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_source: str, _target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            lock_state_dir(tmp_path, NEW)
    (tmp_path / ".owner-k1ll3d").write_text(str(NEW))  # what a process leaves that has no time to clean up
    lock_state_dir(tmp_path, OLD)
    assert (tmp_path / "owner").read_text() == str(OLD)
