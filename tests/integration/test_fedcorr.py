"""Runs of FedCorr: real ServerApp and ClientApp code, in this process."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from server_app.validation.config import check
from tasks.client_data import client_dataset
from tasks.config import ConfigError
from tests.integration.conftest import Play, Played, player
from tests.issues import warning_lines

SETTINGS: dict[str, Any] = {
    "strategy__name": "fedcorr",
    "strategy__args": "iterations = 2, finetune_rounds = 3",
    "strategy__aggregator": "mean",
    "method__name": "fedcorr",
    "loss__name": "ce",
    "num_server_rounds": 18,
    "federation__num_clients": 6,
    "partition__args": "alpha = 10.0, min_size = 30",
    "train__epochs": 5,
    "train__batch_size": 16,
    "train__learning_rate": 0.03,
    "train__momentum": 0.5,
    "noise__rates": "groups",
    "noise__rates_args": "groups = [{clients = 4, rate = 0.0}, {clients = 2, rate = 0.6}]",
    "audit__enabled": False,
    "evaluate__validation": 0.0,  # one client at a time finds the noisy ones by few examples: none is held out
}


def settings(**changes: Any) -> dict[str, Any]:
    """The configuration as the command line has it."""
    return {key.replace("__", ".").replace("_", "-"): value for key, value in {**SETTINGS, **changes}.items()}


def lines(run: Played, server_round: int) -> dict[int, dict[str, Any]]:
    """What is recorded of each client in a round."""
    return {line["client"]: line for line in run.lines("clients.jsonl") if line["round"] == server_round}


def label_accuracy(run: Played, client: int) -> tuple[float, float]:
    """The share of right labels as given, and as corrected in the end."""
    share = client_dataset(check(settings()), client)
    state = load_file(run.path / "clients" / str(client) / "state-18.safetensors")
    assert np.array_equal(state["given"], share.data.labels)
    return float((state["given"] == share.true_labels).mean()), float((state["labels"] == share.true_labels).mean())


def test_noisy_clients_are_found_and_their_labels_corrected(play: Play):
    run = play(**SETTINGS)
    rates = {client: line["noise_rate"] for client, line in lines(run, 0).items()}
    last = lines(run, 18)
    called = {client for client, line in last.items() if line["role"] == "noisy"}
    assert [len(lines(run, number)) for number in range(1, 19)] == [1] * 12 + [6 - len(called)] * 3 + [6] * 3
    assert {line["role"] for number in range(1, 7) for line in lines(run, number).values()} == {"unknown"}
    noisy = {client for client, rate in rates.items() if rate > 0}
    assert noisy <= called < set(range(6))
    for client in noisy:
        assert last[client]["noise_level"] == pytest.approx(rates[client], abs=0.2)
        before, after = label_accuracy(run, client)
        assert after > before + 0.3
    for client in called - noisy:
        assert label_accuracy(run, client)[1] > 0.9
    assert run.metrics[-1]["accuracy"] > 0.85
    assert all("train_lid" in line for line in run.metrics[1:13])
    assert not any("train_lid" in line for line in run.metrics[13:])


@pytest.mark.parametrize("first", [6, 7, 12, 15])
def test_a_resumed_run_equals_an_uninterrupted_one(play: Play, whole_run: Played, first: int):
    half = play(**SETTINGS | QUICKLY | {"num_server_rounds": first})
    resumed = play(**SETTINGS | QUICKLY, run__resume=str(half.path))
    assert resumed.metrics == whole_run.metrics
    assert resumed.lines("clients.jsonl") == whole_run.lines("clients.jsonl")
    assert resumed.weights() == whole_run.weights()


def test_a_run_that_broke_off_long_after_its_last_checkpoint_goes_on_as_if_it_had_not(
    play: Play, whole_run: Played, tmp_path: Path
):
    changes = SETTINGS | QUICKLY | {"run__checkpoint_every": 5}

    def power_cut(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.group_id == "18" and message.metadata.message_type == "train":
            raise KeyboardInterrupt
        return reply

    with pytest.raises(KeyboardInterrupt):
        play(power_cut, **changes)
    (broken,) = tmp_path.iterdir()
    resumed = play(**changes, run__resume=str(broken))
    assert resumed.metrics == whole_run.metrics
    assert resumed.weights() == whole_run.weights()


QUICKLY = {"train__epochs": 1, "train__learning_rate": 0.1}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The uninterrupted run."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return player(tmp_path_factory.mktemp("whole"), monkeypatch)(**SETTINGS | QUICKLY)


def test_only_scores_and_noise_levels_leave_a_client(play: Play):
    seen: set[tuple[str, frozenset[str]]] = set()

    def watch(client: int, message: Message, reply: Message) -> Message:
        kind = message.metadata.message_type
        if kind == "query.method":
            assert not reply.content.array_records
        if kind in ("train", "query.method"):
            (metrics,) = reply.content.metric_records.values()
            question = message.content.config_records["config"].get("question", "train")
            seen.add((str(question), frozenset(metrics)))
        return reply

    play(watch, **SETTINGS)
    always = frozenset({"num-examples"})
    assert seen == {
        ("train", always | {"train-loss", "lid"}),
        ("train", always | {"train-loss"}),
        ("relabel", always | {"noise-level"}),
        ("relabel-confident", always),
    }


def test_a_client_that_fails_to_relabel_does_not_end_the_run(play: Play, caplog: pytest.LogCaptureFixture):
    def fail(client: int, message: Message, reply: Message) -> Message | None:
        return None if message.metadata.message_type == "query.method" else reply

    with caplog.at_level(logging.WARNING, "flwr"):
        run = play(fail, **SETTINGS | QUICKLY)
    assert run.status["status"] == "completed"
    assert {line["role"] for line in lines(run, 18).values()} == {"clean"}
    assert any("did not relabel: no answer in time" in record.getMessage() for record in caplog.records)


def test_the_strategy_needs_a_method_that_answers(play: Play):
    with pytest.raises(ConfigError, match=r"the method sgd does not answer: set method\.name = 'fedcorr'"):
        check(settings(method__name="sgd"))


def test_the_method_trains_under_any_strategy(play: Play):
    run = play(method__name="fedcorr", loss__name="ce", noise__name="none", num_server_rounds=4, train__epochs=2)
    assert run.metrics[-1]["accuracy"] > run.metrics[0]["accuracy"] + 0.2


def test_a_run_too_short_for_all_stages_is_allowed_and_remarked():
    (line,) = warning_lines(settings(num_server_rounds=15))
    assert "stage 3 of FedCorr would begin with round 16, but the run has 15 rounds" in line
    assert not warning_lines(settings())
