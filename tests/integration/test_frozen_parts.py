"""Runs whose model starts from a file, and whose frozen parts neither change nor travel."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from client_app.app import app as client_app
from server_app.evaluation import CentralEvaluation
from server_app.run import run_training
from server_app.storage.checkpoints import CheckpointError
from server_app.validation.config import check
from tasks import fresh_model
from tasks.config import DEFAULTS, parse
from tasks.protocol import Mode
from tests.integration.conftest import QUICK, Play, Played
from tests.integration.local_grid import LocalGrid

FROZEN = {"model.freeze": "1.*", "num-server-rounds": 2}
HEAD = {"3.weight", "3.bias"}


def model(run: Played) -> dict[str, bytes]:
    """The arrays of the model in the last checkpoint."""
    arrays = load_file(run.path / "checkpoints" / "last.safetensors")
    return {name: array.tobytes() for name, array in arrays.items() if not name.startswith("strategy:")}


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy.name": "flower-fedadam"},
        {"method.name": "masked-optim", "strategy.name": "noise-partition", "strategy.args": "warmup_rounds = 1"},
        {"method.name": "fedcorr", "strategy.name": "fedcorr", "federation.min-replies": 1,
         "strategy.args": "iterations = 1, clients_per_step = 4", "strategy.aggregator": "mean"},
        {"privacy.mode": "client-fixed", "privacy.noise-multiplier": 0.01, "strategy.weighting": "uniform",
         "strategy.aggregator": "mean"},
        {"attack.name": "gaussian", "attack.share": 0.25, "federation.fraction-evaluate": 1.0},
    ],
)  # fmt: skip
def test_what_is_frozen_neither_changes_nor_travels_with_anything(play: Play, changes: dict[str, Any]) -> None:
    sizes: list[tuple[int, int]] = []

    def weigh(client: int, message: Message, reply: Message) -> Message:
        sent, got = (
            sum(record.count_bytes() for record in one.content.array_records.values()) for one in (message, reply)
        )
        sizes.append((sent, got))
        return reply

    run = play(weigh, **FROZEN, **changes)
    start, end = CentralEvaluation(parse({**QUICK, **FROZEN})).initial_arrays(), model(run)
    assert end.keys() == start.keys(), "a checkpoint holds the whole model"
    assert {name for name, array in start.items() if end[name] != array.tobytes()} == HEAD
    assert run.metrics[1]["replies"] == 4
    assert max(map(max, sizes)) < 4 * 650 + 500, "of 4,810 parameters 650 travel"


def test_a_resumed_run_keeps_what_is_frozen_and_refuses_another_file(play: Play, tmp_path: Path) -> None:
    first = play(num_server_rounds=1)
    weights = tmp_path / "weights"
    weights.mkdir()
    file = weights / "net.safetensors"
    file.write_bytes((first.path / "checkpoints" / "last.safetensors").read_bytes())
    both = {"model.freeze": "1.*", "model.init": file.name, "task.weights-path": str(weights)}
    whole, half = play(num_server_rounds=2, **both), play(num_server_rounds=1, **both)
    assert whole.metrics[0]["accuracy"] == first.metrics[-1]["accuracy"]
    again = play(num_server_rounds=2, run__resume=str(half.path), **both)
    assert model(again) == model(whole)
    versions = (whole.path / "versions.json").read_text()
    assert '"model.init": "net.safetensors ' in versions
    assert '"model.freeze": "1.* ' in versions
    other = play(num_server_rounds=1, seed=2)
    file.write_bytes((other.path / "checkpoints" / "last.safetensors").read_bytes())
    for cached in (fresh_model._source, fresh_model.model_digest):
        cached.cache_clear()  # as in a new process
    with pytest.raises(CheckpointError, match=r"what is frozen has changed .*\(1\.bias, 1\.weight\)"):
        play(num_server_rounds=3, run__resume=str(half.path), **both)


def test_a_run_from_a_file_trains_all_of_it_and_a_node_needs_no_file(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = play(num_server_rounds=1)
    start = {"model.init": "last.safetensors", "task.weights-path": str(first.path / "checkpoints")}
    flat = {**DEFAULTS, **QUICK, **start, "num-server-rounds": 1, "run.output-dir": str(tmp_path)}
    settings = check(flat)
    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
    at_nodes = {**flat, "task.weights-path": str(tmp_path / "not there")}
    run = Played(run_training(LocalGrid(client_app, at_nodes, 4), settings, Mode.SIMULATION))
    assert run.metrics[0]["accuracy"] == first.metrics[-1]["accuracy"]
    before, after = model(first), model(run)
    assert all(before[name] != after[name] for name in before)
