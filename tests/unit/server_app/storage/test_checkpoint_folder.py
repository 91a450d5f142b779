"""Which checkpoint of a run is used when files are damaged, and that none of them is lost."""

from pathlib import Path

import numpy as np
import pytest

from server_app.storage.checkpoints import BEST, LAST, PREVIOUS, Checkpoint, CheckpointError, CheckpointFolder
from tests.full_disk import room_for
from tests.messages import MODEL


def saved(run: Path, *rounds: int) -> CheckpointFolder:
    folder = CheckpointFolder(run)
    for number in rounds:
        folder.save(Checkpoint(MODEL, {"m": np.full(3, number)}, {"server_round": number}))
    return folder


def names(folder: CheckpointFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


def newest_round(folder: CheckpointFolder) -> tuple[int, str]:
    checkpoint, problem = folder.newest()
    return checkpoint.progress["server_round"], problem


def test_the_last_two_are_kept_and_the_last_is_used(tmp_path: Path):
    folder = saved(tmp_path, 0, 1, 2)
    folder.save_best(Checkpoint(MODEL))
    assert newest_round(folder) == (2, "")
    assert folder.earliest_round() == 1
    assert Checkpoint.read(folder.path / PREVIOUS).progress["server_round"] == 1
    assert names(folder) == {LAST, PREVIOUS, BEST}


def cut(content: bytearray) -> bytearray:
    return content[: len(content) // 2]


def empty(content: bytearray) -> bytearray:
    return content[:0]


def flipped(content: bytearray) -> bytearray:
    content[-1] ^= 1
    return content


@pytest.mark.parametrize("damage", [cut, empty, flipped])
def test_a_damaged_last_one_is_passed_over_and_kept_aside(tmp_path: Path, damage: object):
    folder = saved(tmp_path, 0, 1, 2)
    assert callable(damage)
    bad = bytes(damage(bytearray((folder.path / LAST).read_bytes())))
    (folder.path / LAST).write_bytes(bad)
    number, problem = newest_round(folder)
    assert number == 1
    assert f"{LAST} {'is damaged' if damage is flipped else 'cannot be read'}" in problem
    assert names(folder) == {LAST, PREVIOUS}, "reading changes nothing"
    assert folder.step_back() == folder.path / "damaged-1.safetensors"
    assert (folder.path / "damaged-1.safetensors").read_bytes() == bad
    assert newest_round(folder) == (1, "")
    saved(tmp_path, 2)
    (folder.path / LAST).write_bytes(b"")
    assert folder.step_back() == folder.path / "damaged-2.safetensors"
    assert newest_round(folder) == (1, "")


def test_a_crash_between_the_renames_costs_the_newest_only(tmp_path: Path):
    folder = saved(tmp_path, 0, 1)
    (folder.path / LAST).rename(folder.path / PREVIOUS)
    number, problem = newest_round(folder)
    assert number == 1
    assert problem == f"{folder.path / LAST} is missing: the run may have ended while it was written"
    assert folder.step_back() is None
    assert names(folder) == {LAST}
    assert folder.earliest_round() == 1


def test_two_damaged_ones_are_an_error_that_names_both_and_changes_neither(tmp_path: Path):
    folder = saved(tmp_path, 0, 1)
    for name in (LAST, PREVIOUS):
        (folder.path / name).write_bytes(b"x" * 50)
    with pytest.raises(
        CheckpointError, match=rf"{LAST} cannot be read.*{PREVIOUS} cannot be read.*put one of them back"
    ):
        folder.newest()
    assert {(folder.path / name).read_bytes() for name in (LAST, PREVIOUS)} == {b"x" * 50}


def test_one_damaged_and_no_other_is_an_error(tmp_path: Path):
    folder = saved(tmp_path, 0)
    (folder.path / LAST).write_bytes(b"x" * 50)
    with pytest.raises(CheckpointError, match="cannot be read"):
        folder.newest()
    assert folder.holds_any()
    assert not CheckpointFolder(tmp_path / "other").holds_any()


def test_a_full_disk_leaves_both(tmp_path: Path):
    folder = saved(tmp_path, 0, 1)
    before = {name: (folder.path / name).read_bytes() for name in (LAST, PREVIOUS)}
    with room_for(100), pytest.raises(OSError, match=rf"cannot write .*{LAST}: File too large"):
        saved(tmp_path, 2)
    assert {name: (folder.path / name).read_bytes() for name in names(folder)} == before
