"""A run whose last checkpoint is damaged goes on from the one before, and comes out the same."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from server_app.storage.checkpoints import Checkpoint
from tasks.config import ConfigError
from tests.integration.conftest import Play, Played

STATEFUL = {"method__name": "tests.integration.counting:Counting"}
PRIVATE = {"privacy__mode": "server-fixed", "privacy__noise_multiplier": 0.5, "privacy__clipping_norm": 1.0}
PRIVATE |= {"strategy__aggregator": "mean", "strategy__weighting": "uniform"}


def flip_a_bit(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[-10] ^= 4
    path.write_bytes(content)
    return bytes(content)


def checkpoint(run: Played, name: str = "last") -> Path:
    return run.path / "checkpoints" / f"{name}.safetensors"


def saved_round(run: Played, name: str = "last") -> int:
    return int(Checkpoint.read(checkpoint(run, name)).progress["server_round"])


def assert_equal(one: Played, other: Played) -> None:
    assert one.metrics == other.metrics
    assert one.lines("clients.jsonl") == other.lines("clients.jsonl")
    assert one.weights() == other.weights()


@pytest.mark.parametrize("every", [1, 2])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    play: Play, every: int, caplog: pytest.LogCaptureFixture
):
    settings = {**STATEFUL, "run__checkpoint_every": every}
    whole = play(num_server_rounds=6, **settings)
    half = play(num_server_rounds=4, **settings)
    assert (saved_round(half), saved_round(half, "previous")) == (4, 4 - every)
    bad = flip_a_bit(checkpoint(half))
    caplog.clear()
    resumed = play(num_server_rounds=6, run__resume=str(half.path), **settings)
    assert_equal(resumed, whole)
    assert checkpoint(resumed, "damaged-1").read_bytes() == bad
    said = next(record.getMessage() for record in caplog.records if "damaged" in record.getMessage())
    assert f"does not match its digest: the checkpoint of round {4 - every} before it is used" in said
    assert (resumed.status["resumed_after"], resumed.status["resumed_from"]) == (4 - every, "previous.safetensors")
    assert "is damaged" in resumed.status["checkpoint_problem"]


@pytest.mark.parametrize("resumed_before", [False, True])
def test_clients_still_have_the_states_of_the_previous_checkpoint_after_a_crash_in_a_later_round(
    play: Play, tmp_path: Path, resumed_before: bool
):
    whole = play(num_server_rounds=5, **STATEFUL)

    def crash(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.group_id == "5" and message.metadata.message_type == "train" and client == 3:
            raise KeyboardInterrupt
        return reply

    half = str(play(num_server_rounds=4, **STATEFUL).path) if resumed_before else ""
    with pytest.raises(KeyboardInterrupt):
        play(crash, num_server_rounds=5, run__resume=half, **STATEFUL)
    (path,) = set(tmp_path.iterdir()) - {whole.path}
    broken = Played(path)
    assert broken.status["status"] == "stopped"
    assert (saved_round(broken), saved_round(broken, "previous")) == (4, 3)
    flip_a_bit(checkpoint(broken))
    assert_equal(play(num_server_rounds=5, run__resume=str(path), **STATEFUL), whole)


def test_clients_keep_the_states_to_which_the_run_may_go_back_and_no_older_ones(play: Play):
    run = play(num_server_rounds=6, **STATEFUL)
    kept = {path.name for path in (run.path / "clients/0").glob("state-*")}
    assert (saved_round(run), saved_round(run, "previous")) == (6, 5)
    assert kept == {f"state-{r}.safetensors" for r in (4, 5, 6)}, "round 6 was told of checkpoints 4 and 5"


def test_damage_twice_in_a_row_still_loses_nothing(play: Play):
    whole = play(num_server_rounds=5, **STATEFUL)
    run = play(num_server_rounds=4, **STATEFUL)
    flip_a_bit(checkpoint(run))
    play(num_server_rounds=4, run__resume=str(run.path), **STATEFUL)
    flip_a_bit(checkpoint(run))
    assert_equal(play(num_server_rounds=5, run__resume=str(run.path), **STATEFUL), whole)
    assert {path.name for path in (run.path / "checkpoints").glob("damaged-*")} == {
        "damaged-1.safetensors",
        "damaged-2.safetensors",
    }


def test_two_damaged_checkpoints_are_refused_and_nothing_is_deleted(play: Play):
    run = play(num_server_rounds=3)
    files = {name: flip_a_bit(checkpoint(run, name)) for name in ("last", "previous")}
    records = {name: (run.path / name).read_bytes() for name in ("metrics.jsonl", "clients.jsonl")}
    status = (run.path / "status.json").read_bytes()
    with pytest.raises(ConfigError, match=r"last.*is damaged.*previous.*is damaged.*put one of them back"):
        play(num_server_rounds=5, run__resume=str(run.path))
    assert {name: checkpoint(run, name).read_bytes() for name in files} == files
    assert {name: (run.path / name).read_bytes() for name in records} == records
    assert (run.path / "status.json").read_bytes() == status, "it was refused before it began"


def test_a_model_that_is_released_twice_is_counted_twice(play: Play):
    private: dict[str, Any] = {**PRIVATE, "noise__name": "none"}
    whole = play(num_server_rounds=5, **private)
    half = play(num_server_rounds=3, **private)
    flip_a_bit(checkpoint(half))
    resumed = play(num_server_rounds=4, run__resume=str(half.path), **private)
    assert resumed.metrics[-1]["epsilon"] == whole.metrics[-1]["epsilon"], "4 rounds, 5 releases"
    again = play(num_server_rounds=5, run__resume=str(half.path), **private)
    assert again.metrics[-1]["epsilon"] > whole.metrics[-1]["epsilon"], "still counted after another resume"


@pytest.mark.parametrize(("kind", "releases"), [("evaluate", 5), ("train", 4)])
def test_a_model_that_went_out_for_evaluation_before_a_crash_is_counted_twice(
    play: Play, tmp_path: Path, kind: str, releases: int
):
    private: dict[str, Any] = {**PRIVATE, "noise__name": "none", "federation__fraction_evaluate": 1.0}
    whole = play(num_server_rounds=5, **private)

    def crash(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.group_id == "3" and message.metadata.message_type == kind:
            raise KeyboardInterrupt
        return reply

    with pytest.raises(KeyboardInterrupt):
        play(crash, num_server_rounds=4, **private)
    (path,) = set(tmp_path.iterdir()) - {whole.path}
    resumed = play(num_server_rounds=4, run__resume=str(path), **private)
    spent = [line["epsilon"] for line in whole.metrics]
    assert resumed.metrics[-1]["epsilon"] == spent[releases], f"4 rounds, {releases} releases"
