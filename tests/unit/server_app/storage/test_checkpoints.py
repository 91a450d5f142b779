"""Checkpoints: what is written comes back, and which of a run is used when files are damaged; none of them is lost."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from server_app.storage.checkpoints import BEST, LAST, PREVIOUS, Checkpoint, CheckpointError, CheckpointFolder
from server_app.storage.run_directory import CLIENTS, METRICS, OccupiedError, RunDirectory
from tasks.settings import Settings
from tests.conftest import ROOT
from tests.full_disk import room_for
from tests.messages import MODEL


def test_a_checkpoint_comes_back_and_loads_as_a_state_dict(tmp_path: Path):
    path = tmp_path / "checkpoints" / "last.safetensors"
    Checkpoint(MODEL, {"m_t/weight": np.ones(3)}, {"server_round": 4, "best_value": None}).write(path)
    back = Checkpoint.read(path)
    assert back.progress == {"server_round": 4, "best_value": None}
    assert back.model.keys() == MODEL.keys()
    assert all(np.array_equal(back.model[name], MODEL[name]) for name in MODEL)
    assert back.model["count"].dtype == np.int64
    assert np.array_equal(back.strategy["m_t/weight"], np.ones(3))
    assert np.array_equal(load_file(path)["weight"], MODEL["weight"])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_no_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        Checkpoint.read(tmp_path / "last.safetensors")
    (tmp_path / "last.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoint.read(tmp_path / "last.safetensors")
    with pytest.raises(CheckpointError, match="another model"):
        Checkpoint(MODEL).check_model({"weight": MODEL["weight"]})


def test_a_checkpoint_of_an_older_version_is_called_that(tmp_path: Path):
    path = tmp_path / "last.safetensors"
    path.write_bytes(save(MODEL, {"winnow": json.dumps({"progress": {"server_round": 4}})}))
    with pytest.raises(CheckpointError, match=r"last\.safetensors has no digest: written by an older version"):
        Checkpoint.read(path)
    path.write_bytes(save(MODEL, {"winnow": "[]"}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoint.read(path)


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path):
    path = tmp_path / "last.safetensors"
    written = Checkpoint(MODEL, {"m_t/weight": np.ones(3)}, {"server_round": 4, "best_value": 0.25})
    written.write(path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        for bit in (0, 5):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            try:
                back = Checkpoint.read(path)
            except CheckpointError:
                refused += 1
                continue
            assert back.progress == written.progress, f"byte {place}"
            assert all(back.model[name].tobytes() == MODEL[name].tobytes() for name in MODEL), f"byte {place}"
    assert refused > 1.9 * len(whole), "what is read in spite of a flip is padding"


def test_a_run_directory_is_new_and_forgets_rounds_after_a_checkpoint(tmp_path: Path):
    first = RunDirectory.create(tmp_path, "a", Settings())
    second = RunDirectory.create(tmp_path, "a", Settings())
    assert first.path != second.path
    first.append(METRICS, [{"round": r, "loss": float("nan")} for r in range(4)])
    first.append(CLIENTS, [{"round": r, "client": 0} for r in range(4)])
    with (first.path / METRICS).open("a") as file:
        file.write('{"round": 4, "lo')  # a crash in the middle of a line
    first.forget_after(2)
    assert (first.path / METRICS).read_text().splitlines() == [f'{{"round": {r}, "loss": null}}' for r in range(3)]
    assert len((first.path / CLIENTS).read_text().splitlines()) == 3


def test_one_run_at_a_time_works_in_a_directory(tmp_path: Path):
    first = RunDirectory.create(tmp_path, "", Settings())
    first.claim()
    second = RunDirectory(first.path)
    with pytest.raises(OccupiedError, match=f"another ServerApp still works on {first.path}"):
        second.claim()
    first.finish("stopped", "asked to end")
    second.claim()
    with pytest.raises(OccupiedError):
        first.claim()
    second.finish("completed", "")


def test_a_killed_run_leaves_its_directory_free(tmp_path: Path):
    directory = RunDirectory.create(tmp_path, "", Settings())
    lines = f"import os, pathlib; RunDirectory(pathlib.Path({str(tmp_path)!r}, {directory.path.name!r})).claim()"
    code = f"from server_app.storage.run_directory import RunDirectory; {lines}; os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    directory.claim()
    directory.finish("completed", "")


def test_status_changes_keep_the_other_fields(tmp_path: Path):
    directory = RunDirectory.create(tmp_path, "", Settings())
    directory.update_status(label="x", started="now")
    directory.finish("failed", "because")
    status = directory.status()
    assert (status["label"], status["started"], status["status"], status["reason"]) == ("x", "now", "failed", "because")


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
