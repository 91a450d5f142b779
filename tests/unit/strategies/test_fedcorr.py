"""The server's part of FedCorr: which clients train when, who is suspected, and what bad answers do."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from strategies.aggregators import AGGREGATORS
from strategies.fedcorr import ClientEstimate, FedCorr, Schedule
from tasks.issues import RunContext
from tasks.settings import FederationSettings, Settings
from tests.messages import MODEL, answer, record
from tests.unit.server_app.storage.test_strategy_state import through_a_file

LEVELS = {4: 0.5, 5: 0.7}
"""Noise levels of the clients that are noisy; their scores are high."""


class Federation:
    """Clients 0, 1, 2, ... that answer questions; ``replace`` holds other answers by client."""

    def __init__(self, count: int, replace: dict[int, Any] | None = None) -> None:
        self.present = set(range(count))
        self.replace = replace or {}
        self.questions: list[tuple[str, list[int]]] = []

    def get_node_ids(self) -> Iterable[int]:
        return set(self.present)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        asked = list(messages)
        clients = [message.metadata.dst_node_id for message in asked]
        self.questions.append((str(asked[0].content["config"]["question"]) if asked else "", clients))  # type: ignore[index]
        return [self._reply(message) for message in asked if self.replace.get(message.metadata.dst_node_id) != "none"]

    def _reply(self, message: Message) -> Message:
        client = message.metadata.dst_node_id
        level = self.replace.get(client, LEVELS.get(client, 0.3))
        values = {"num-examples": 10} if level == "nothing" else {"num-examples": 10, "noise-level": level}
        return Message(RecordDict({"metrics": MetricRecord(values)}), reply_to=message)


def fedcorr(**options: Any) -> FedCorr:
    options = {"iterations": 2, "finetune_rounds": 2, "seed": 3, **options}
    return FedCorr(AGGREGATORS.build(options.pop("aggregator", "mean")), buffers=("running_var", "count"), **options)


def levels(strategy: FedCorr) -> list[float]:
    return [known.noise_level for known in strategy.estimates.values()]


def play_round(strategy: FedCorr, server_round: int, clients: Federation) -> dict[int, ConfigRecord]:
    """Play a round in which everybody answers; return what each client was told."""
    told = list(strategy.configure_train(server_round, record(MODEL), ConfigRecord(), clients))  # type: ignore[arg-type]
    chosen = [message.metadata.dst_node_id for message in told]
    replies = [answer(c, num_examples=10, lid=9.0 if c in LEVELS else 2.0 + c / 10) for c in chosen]
    strategy.aggregate_train(server_round, replies)
    return {message.metadata.dst_node_id: message.content.config_records["config"] for message in told}


def play(strategy: FedCorr, rounds: int, clients: Federation, first: int = 1) -> list[dict[int, ConfigRecord]]:
    return [play_round(strategy, number, clients) for number in range(first, rounds + 1)]


@pytest.mark.parametrize(("clients", "at_once", "steps"), [(6, 1, 6), (6, 4, 2), (6, 6, 1), (7, 3, 3), (5, 9, 1)])
def test_the_stages_follow_one_another(clients: int, at_once: int, steps: int):
    schedule = Schedule(2, clients, at_once, 3)
    stages = [schedule.stage(number) for number in range(1, 2 * steps + 6)]
    assert stages == [1] * 2 * steps + [2] * 3 + [3] * 2
    numbers = range(2 * steps + 6)
    assert [n for n in numbers if schedule.ends_iteration(n)] == [steps, 2 * steps]
    assert [n for n in numbers if schedule.ends_finetuning(n)] == [2 * steps + 3]


@pytest.mark.parametrize("at_once", [1, 4])
def test_an_iteration_visits_every_client_once_in_an_order_of_its_own(at_once: int):
    told = play(fedcorr(clients_per_step=at_once), 12, Federation(6))
    steps = 6 if at_once == 1 else 2
    passes = [[client for one in told[i * steps : (i + 1) * steps] for client in one] for i in range(2)]
    assert [sorted(one) for one in passes] == [list(range(6))] * 2
    assert passes[0] != passes[1] or at_once > 1


def test_noisy_clients_are_known_after_an_iteration_and_clean_ones_go_on_alone():
    clients, strategy = Federation(6), fedcorr()
    told = play(strategy, 16, clients)
    assert clients.questions == [("relabel", [4, 5])] * 2 + [("relabel-confident", [4, 5])]
    for number, one in enumerate(told, start=1):
        for client, config in one.items():
            expected = "unknown" if number <= 6 else "noisy" if client in LEVELS else "clean"
            assert config["role"] == expected
            level = LEVELS.get(client, 0.0) if number > 6 else 0.0
            assert config.get("noise-level") == (level if number <= 12 else None)
            assert config.get("want-lid", False) == (number <= 12)
    assert [sorted(one) for one in told[12:]] == [[0, 1, 2, 3]] * 2 + [list(range(6))] * 2
    assert strategy.report.roles == {c: "noisy" if c in LEVELS else "clean" for c in range(6)}
    assert strategy.report.noise_levels == {c: LEVELS.get(c, 0.0) for c in range(6)}


def test_a_low_noise_level_is_clean_and_without_fine_tuning_nobody_relabels_in_between():
    clients = Federation(6, {4: 0.1, 5: 0.11})
    told = play(fedcorr(finetune_rounds=0, iterations=1), 7, clients)
    assert [question for question, _ in clients.questions] == ["relabel"]
    assert {client: config["role"] for client, config in told[6].items() if client > 3} == {4: "clean", 5: "noisy"}


def test_scores_of_all_iterations_count():
    strategy = fedcorr()
    play(strategy, 12, Federation(6))
    known = strategy.estimates.values()
    np.testing.assert_allclose([one.score_sum for one in known], [4.0, 4.2, 4.4, 4.6, 18.0, 18.0])
    assert [one.scores for one in known] == [2] * 6


def test_if_every_client_is_noisy_all_train_on():
    strategy, clients = fedcorr(iterations=1), Federation(2)
    play(strategy, 3, clients)
    for known in strategy.estimates.values():
        known.noise_level = 0.9
    assert sorted(play_round(strategy, 4, clients)) == [0, 1]


def test_fewer_clients_train_in_later_stages_but_not_fewer_than_one():
    told = play(fedcorr(fraction_train=0.5, min_replies=3), 16, Federation(6))
    assert [len(one) for one in told] == [1] * 12 + [3] * 4
    assert not {4, 5} & set(told[12]) | {4, 5} & set(told[13])


BAD = {"silence": "none", "no level": "nothing", "not finite": float("nan"), "too large": 1.5, "negative": -0.1}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_costs_nobody_else_his_level(kind: str, caplog: pytest.LogCaptureFixture):
    strategy = fedcorr()
    with caplog.at_level(logging.WARNING, "flwr"):
        play(strategy, 7, Federation(6, {4: BAD[kind]}))
    assert levels(strategy) == [0.0] * 5 + [0.7]
    (line,) = [text.getMessage() for text in caplog.records if "Client 4 did not relabel" in text.getMessage()]
    assert ("no answer in time" in line) if kind == "silence" else ("must be a number from 0 to 1" in line)


def test_a_suspect_that_does_not_answer_again_keeps_its_level_and_one_no_longer_suspected_loses_it():
    strategy, clients = fedcorr(), Federation(6)
    play(strategy, 7, clients)
    clients.replace = {4: "none"}
    strategy.estimates[5].score_sum = strategy.estimates[5].scores * 2.0
    strategy._judge(record(MODEL), ConfigRecord(), clients)  # type: ignore[arg-type]
    assert levels(strategy) == [0.0, 0.0, 0.0, 0.0, 0.5, 0.0]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -1.0, 1e9, 0.0])
def test_a_score_that_cannot_be_is_no_score(score: float):
    strategy, clients = fedcorr(), Federation(3)
    (message,) = strategy.configure_train(1, record(MODEL), ConfigRecord(), clients)  # type: ignore[arg-type]
    strategy.aggregate_train(1, [answer(message.metadata.dst_node_id, num_examples=10, lid=score)])
    assert [(one.scores, one.score_sum) for one in strategy.estimates.values()] == [(0, 0.0)] * 3


def test_another_client_stands_in_for_a_lost_one():
    clients, strategy = Federation(6), fedcorr()
    clients.present.discard(2)
    strategy.estimates = {client: ClientEstimate() for client in range(6)}
    visited = [client for one in play(strategy, 6, clients) for client in one]
    assert len(visited) == 6
    assert set(visited) == {0, 1, 3, 4, 5}


@pytest.mark.parametrize("interrupted", range(17))
def test_a_checkpoint_holds_all_that_the_rounds_after_it_need(interrupted: int, tmp_path: Path):
    whole, first, second = fedcorr(), fedcorr(), fedcorr()
    expected = play(whole, 16, Federation(6))
    play(first, interrupted, Federation(6))
    through_a_file(first, second, tmp_path)
    assert second.state_dict() == first.state_dict()
    assert play(second, 16, Federation(6), interrupted + 1) == expected[interrupted:]
    assert second.estimates == whole.estimates
    assert second.report == whole.report or interrupted == 16


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"iterations": 0}, "iterations = 0: must be at least 1"),
        ({"clients_per_step": 0}, "clients_per_step = 0: must be at least 1"),
        ({"finetune_rounds": -1}, "finetune_rounds = -1: must be at least 0"),
        ({"clean_threshold": 1.0}, "clean_threshold = 1.0: must be at least 0 and below 1"),
        ({"aggregator": "krum"}, "clients_per_step = 1: krum .* a step of stage 1 has 1"),
    ],
)
def test_impossible_arguments_are_refused(options: dict[str, Any], reason: str):
    with pytest.raises(ValueError, match=reason):
        fedcorr(**options)


@pytest.mark.parametrize(("rounds", "missed"), [(12, "stage 2 .* round 13"), (14, "stage 3 .* round 15"), (15, "")])
def test_a_run_that_ends_before_a_stage_is_warned_about(rounds: int, missed: str):
    context = RunContext(Settings(num_server_rounds=rounds, federation=FederationSettings(num_clients=6)), sampled=6)
    lines = [issue.line for issue in fedcorr().issues(context)]
    assert len(lines) == bool(missed)
    assert re.search(missed, "".join(lines))
