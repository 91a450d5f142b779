import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from server_app.storage.checkpoints import Checkpoint, CheckpointError
from server_app.storage.run_directory import CLIENTS, METRICS, OccupiedError, RunDirectory
from tasks.settings import Settings
from tests.conftest import ROOT
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
