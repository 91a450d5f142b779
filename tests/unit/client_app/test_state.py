from pathlib import Path

import numpy as np
from flwr.app import Context, RecordDict

from client_app.state import ContextStore, FolderStore


def test_the_context_keeps_the_state():
    context = Context(1, 1, {}, RecordDict(), {})
    store = ContextStore(context)
    assert store.load(1) is None
    store.save(1, {"labels": np.arange(6).reshape(2, 3)})
    back = ContextStore(context).load(2)
    assert back is not None
    assert np.array_equal(back["labels"], np.arange(6).reshape(2, 3))


def test_the_folder_gives_the_state_before_a_round_so_that_a_round_can_be_repeated(tmp_path: Path):
    for server_round in (1, 3, 4):
        FolderStore(tmp_path, 0).save(server_round, {"round": np.array([server_round])})
    assert FolderStore(tmp_path, 0).load(1) is None
    found = [FolderStore(tmp_path, 0).load(server_round) for server_round in (2, 3, 4, 9)]
    assert [state["round"].item() for state in found if state] == [1, 1, 3, 4]


def test_files_that_no_checkpoint_needs_are_removed(tmp_path: Path):
    for server_round in range(1, 7):
        FolderStore(tmp_path, checkpoint_round=4).save(server_round, {"x": np.ones(1)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"state-{r}.safetensors" for r in (4, 5, 6)]


def test_a_method_without_state_writes_nothing(tmp_path: Path):
    FolderStore(tmp_path / "new", 0).save(1, {})
    assert not (tmp_path / "new").exists()
