"""Personal results: sites get the model that the run keeps as its best."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from server_app.label_audit import kept_best
from server_app.state import RunState
from server_app.storage.checkpoints import BEST, Checkpoint, CheckpointFolder

BEST_MODEL = {"weight": np.full(2, 7.0, np.float32), "frozen": np.ones(3, np.float32), "control": np.zeros(1)}


def state(path: Path, best_round: int | None) -> RunState:
    """Return a run after round 5, of whose model ``weight`` travels."""
    found = SimpleNamespace(
        best_round=best_round,
        server_round=5,
        directory=SimpleNamespace(path=path),
        sent={"weight": np.zeros(2, np.float32)},
    )
    return cast(RunState, found)


def test_the_best_model_is_sent_as_far_as_a_model_travels(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path).save_best(Checkpoint(BEST_MODEL))
    found = kept_best(state(tmp_path, 3))
    assert found is not None
    arrays, model_round = found
    assert model_round == 3
    assert {name: array.tolist() for name, array in arrays.items()} == {"weight": [7.0, 7.0]}


def test_the_last_model_is_sent_where_it_is_the_best_or_none_is(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path).save_best(Checkpoint(BEST_MODEL))
    assert kept_best(state(tmp_path, 5)) is None
    assert kept_best(state(tmp_path, None)) is None


def test_a_damaged_best_model_gives_way_to_the_last(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path).save_best(Checkpoint(BEST_MODEL))
    (tmp_path / "checkpoints" / BEST).write_bytes(b"cut off")
    assert kept_best(state(tmp_path, 3)) is None
