"""Profiles that come with the training, and noise rates that clients estimate: who is judged by them, and when."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message

from strategies.aggregators import AGGREGATORS
from strategies.detection.profiles import ProfileAnswer
from strategies.detection.reports import without_trend
from strategies.noise_partition import NoisePartition
from tests.messages import MODEL, answer, record
from tests.unit.server_app.storage.test_strategy_state import through_a_file
from tests.unit.strategies.test_noise_partition import Answers, expected

BUFFERS = ("running_var", "count")


def build(**options: Any) -> NoisePartition:
    chosen = {"warmup_rounds": 2, "profile_while_training": True, "buffers": BUFFERS} | options
    return NoisePartition(AGGREGATORS.build("mean"), **chosen)


class Training:
    """Clients whose labels have a loss of 2.6 - ``fall`` x round, and 0.6 more if they are noisy."""

    def __init__(self, strategy: NoisePartition, noisy: set[int], clients: int = 6, fall: float = 0.0) -> None:
        self.strategy, self.noisy, self.fall = strategy, noisy, fall
        self.grid = Answers(noisy, clients=clients)
        self.broken: set[int] = set()
        self.told: dict[int, ConfigRecord] = {}

    def play(self, server_round: int) -> dict[int, str]:
        """Play a round, and return the role of each client that trained."""
        messages = self.strategy.configure_train(server_round, record(MODEL), ConfigRecord(), self.grid)  # type: ignore[arg-type]
        self.told = {m.metadata.dst_node_id: m.content.config_records["config"] for m in messages}
        self.strategy.aggregate_train(server_round, [self.reply(client, server_round) for client in self.told])
        return {client: str(config["role"]) for client, config in self.told.items()}

    def reply(self, client: int, server_round: int) -> Message:
        if client in self.broken:
            return answer(client, noise_rate=0.0)
        loss = 2.6 - self.fall * server_round + 0.6 * (client in self.noisy)
        return answer(client, class_losses=[loss, loss], class_counts=[4, 6], noise_rate=0.3 * (client in self.noisy))


def test_clients_are_judged_by_what_came_with_their_training_and_nobody_is_asked():
    training = Training(build(), {1, 4})
    assert [set(training.play(server_round).values()) for server_round in (1, 2)] == [{"unknown"}] * 2
    assert training.play(3) == training.play(4) == expected({1, 4})
    assert all(config["want-profile"] is True and "want-noise-rate" not in config for config in training.told.values())
    assert training.grid.asked == []


def test_a_fall_of_the_losses_from_round_to_round_is_no_difference_of_clients():
    noisy = {0, 3, 6, 9, 12, 15}
    training = Training(build(warmup_rounds=11, fraction_train=1 / 6), noisy, clients=18, fall=0.2)
    for server_round in range(1, 13):
        training.play(server_round)
    assert {client for client, found in training.strategy.judgements.items() if found.noisy} == noisy
    assert len(training.strategy.judgements) == 18


def test_no_fall_can_be_told_where_no_class_was_seen_in_two_rounds():
    losses, counts = np.diag([1.0, 3.0]), np.diag([5, 5])
    answers = [ProfileAnswer(number + 1, number, losses[number], counts[number]) for number in (0, 1)]
    _, kept, _ = without_trend(answers)
    np.testing.assert_array_equal(kept, losses)


def test_who_joins_late_is_judged_after_its_first_training():
    training = Training(build(), {1, 4, 7})
    for server_round in range(1, 4):
        training.play(server_round)
    training.grid.clients = 8
    assert training.play(4) == expected({1, 4}) | {6: "unknown", 7: "unknown"}
    assert training.play(5) == expected({1, 4, 7}, 8)


def test_a_reply_without_a_usable_profile_counts_and_its_client_has_no_role(caplog: pytest.LogCaptureFixture):
    training = Training(build(), {1, 4})
    training.broken = {2}
    with caplog.at_level(logging.WARNING, "flwr"):
        for server_round in range(1, 3):
            training.play(server_round)
    assert training.play(3) == expected({1, 4}) | {2: "unknown"}
    assert set(training.strategy.report.examples) == set(range(6))
    assert "No loss profile of client 2: expected class-losses and class-counts" in caplog.text


def test_a_client_that_did_not_report_in_the_last_turn_keeps_its_judgement():
    training = Training(build(reprofile_every=1), {1, 4})
    for server_round in range(1, 4):
        training.play(server_round)
    training.broken, training.noisy = {1}, {0}
    for server_round in range(4, 8):
        found = training.play(server_round)
    assert found == expected({0, 1})


def test_reports_survive_a_restart(tmp_path: Path):
    training = Training(build(detector="noise-rate"), {1, 4})
    for server_round in range(1, 3):
        training.play(server_round)
    fresh = build(detector="noise-rate")
    through_a_file(training.strategy, fresh, tmp_path)
    assert Training(fresh, set()).play(3) == expected({1, 4})


def test_all_clients_may_be_noisy_by_the_rates_that_they_estimate():
    training = Training(build(detector="noise-rate"), set(range(6)))
    for server_round in range(1, 3):
        training.play(server_round)
    assert training.play(3) == expected(set(range(6)))
    assert all(config["want-noise-rate"] is True for config in training.told.values())


class Rates(Answers):
    """Clients that answer with their noise rate, if they are asked for it, and are not ``silent`` about it."""

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        asked = list(messages)
        self.wanted = {message.content.config_records["config"].get("want-noise-rate") for message in asked}
        self.shares = {message.content.config_records["config"].get("estimate-shares") for message in asked}
        return super().send_and_receive(asked)

    def answer(self, message: Message) -> Message:
        reply = super().answer(message)
        if message.metadata.dst_node_id != 5:
            reply.content.metric_records["metrics"]["noise-rate"] = 0.4
        return reply


@pytest.mark.parametrize("detector", ["noise-rate", "robust"])
def test_noise_rates_are_asked_for_where_the_detector_looks_at_them(detector: str):
    strategy = NoisePartition(AGGREGATORS.build("mean"), warmup_rounds=0, detector=detector)
    grid = Rates({1, 4})
    messages = list(strategy.configure_train(1, record(MODEL), ConfigRecord(), grid))  # type: ignore[arg-type]
    roles = {m.metadata.dst_node_id: m.content.config_records["config"]["role"] for m in messages}
    if detector == "robust":
        assert (grid.wanted, roles) == ({None}, expected({1, 4}))
    else:
        assert (grid.wanted, roles) == ({True}, expected(set(range(5)), 5) | {5: "unknown"})


def test_clients_are_told_to_estimate_their_class_shares():
    grid = Rates({1, 4})
    strategy = NoisePartition(AGGREGATORS.build("mean"), warmup_rounds=0, estimate_shares=True)
    list(strategy.configure_train(1, record(MODEL), ConfigRecord(), grid))  # type: ignore[arg-type]
    assert grid.shares == {True}
    training = Training(build(estimate_shares=True), {1, 4})
    training.play(1)
    assert all(config["estimate-shares"] is True for config in training.told.values())
