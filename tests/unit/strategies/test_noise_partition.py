"""The strategy that tells clients apart, without clients that train: what it asks, keeps and forgets."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from strategies.aggregators import AGGREGATORS
from strategies.noise_partition import NoisePartition
from tests.issues import warning_lines
from tests.messages import MODEL, record
from tests.unit.server_app.storage.test_strategy_state import through_a_file


class Answers:
    """A grid whose clients 0 to 5 answer with a loss of 3 if noisy and 0.3 if not."""

    def __init__(self, noisy: set[int], silent: set[int] | None = None, clients: int = 6) -> None:
        self.noisy, self.silent, self.clients = noisy, silent or set(), clients
        self.asked: list[list[int]] = []

    def get_node_ids(self) -> Iterable[int]:
        return range(self.clients)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        asked = list(messages)
        self.asked.append([message.metadata.dst_node_id for message in asked])
        return [self.answer(message) for message in asked if message.metadata.dst_node_id not in self.silent]

    def answer(self, message: Message) -> Message:
        noisy = message.metadata.dst_node_id in self.noisy
        values = {"num-examples": 60, "class-losses": [3.0 if noisy else 0.3] * 3, "class-counts": [20] * 3}
        return Message(RecordDict({"metrics": MetricRecord(values)}), reply_to=message)


def build(**options: Any) -> NoisePartition:
    return NoisePartition(AGGREGATORS.build("mean"), **{"warmup_rounds": 2} | options)


def roles(strategy: NoisePartition, server_round: int, grid: Answers) -> dict[int, str]:
    messages = strategy.configure_train(server_round, record(MODEL), ConfigRecord({"own": 7}), grid)  # type: ignore[arg-type]
    told = {message.metadata.dst_node_id: message.content.config_records["config"] for message in messages}
    assert all(config["own"] == 7 for config in told.values())
    return {client: str(config["role"]) for client, config in told.items()}


def expected(noisy: set[int], clients: int = 6) -> dict[int, str]:
    return {client: "noisy" if client in noisy else "clean" for client in range(clients)}


def test_nobody_is_asked_before_the_end_of_the_warm_up_and_all_are_asked_once_after_it():
    strategy, grid = build(), Answers({1, 4})
    for server_round in (1, 2):
        assert set(roles(strategy, server_round, grid).values()) == {"unknown"}
    assert grid.asked == []
    for server_round in (3, 4, 5):
        assert roles(strategy, server_round, grid) == expected({1, 4})
    assert grid.asked == [list(range(6))]


def test_without_a_warm_up_the_first_round_has_roles():
    assert roles(build(warmup_rounds=0), 1, Answers({0, 1})) == expected({0, 1})


def test_a_client_that_joins_later_is_judged_when_it_appears():
    strategy, grid = build(), Answers({1, 4})
    roles(strategy, 3, grid)
    grid.clients, grid.noisy = 8, {1, 4, 7}
    assert roles(strategy, 4, grid) == expected({1, 4, 7}, 8)
    assert [len(asked) for asked in grid.asked] == [6, 8]


def test_a_judged_client_that_falls_silent_keeps_its_role():
    strategy, grid = build(reprofile_every=1), Answers({1, 4})
    roles(strategy, 3, grid)
    grid.silent, grid.noisy = {1}, {0, 4}
    assert roles(strategy, 4, grid) == expected({0, 1, 4})
    assert list(strategy.judgements) == list(range(6))


def test_a_client_that_never_answers_is_asked_twice_and_again_at_the_next_profiling():
    strategy, grid = build(reprofile_every=5), Answers({1, 4}, silent={2})
    for server_round in range(3, 8):
        assert roles(strategy, server_round, grid)[2] == "unknown"
    assert len(grid.asked) == 2
    grid.silent = set()
    assert roles(strategy, 8, grid) == expected({1, 4})


def test_an_error_costs_one_client_its_role():
    class OneBroken(Answers):
        def answer(self, message: Message) -> Message:
            if message.metadata.dst_node_id == 0:
                return Message(Error(2, "boom"), reply_to=message)
            return super().answer(message)

    assert roles(build(), 3, OneBroken({1, 4})) == expected({1, 4}) | {0: "unknown"}


def test_a_registered_example_count_counts_more_than_a_claimed_one():
    strategy = build(examples=dict.fromkeys(range(6), 60) | {3: 61})
    assert roles(strategy, 3, Answers({1, 4})) == expected({1, 4}) | {3: "unknown"}


def test_roles_reach_the_aggregation_and_the_report():
    strategy = build()
    roles(strategy, 3, Answers({1, 4}))
    assert strategy.roles == expected({1, 4})
    strategy.aggregate_train(3, [])
    assert strategy.report.roles == expected({1, 4})
    assert {client for client, value in strategy.report.posteriors.items() if value > 0.5} == {1, 4}


def test_what_was_found_out_survives_a_restart(tmp_path: Path):
    strategy, fresh, grid = build(), build(timeout=9.0), Answers({1, 4}, silent={2})
    roles(strategy, 3, grid)
    through_a_file(strategy, fresh, tmp_path)
    for name in ("judgements", "failures", "learned", "extra"):
        assert getattr(fresh, name) == getattr(strategy, name), name
    assert fresh.failures == {2: 1}
    grid.asked.clear()
    assert roles(fresh, 4, grid) == roles(strategy, 4, grid)
    assert grid.asked == [list(range(6))] * 2, "client 2 is asked a second time by both"
    assert fresh.judgements == strategy.judgements


def test_clients_that_all_answer_about_other_classes_later_do_not_end_the_run():
    class TwoLiars(Answers):
        classes = 7

        def answer(self, message: Message) -> Message:
            reply = super().answer(message)
            metrics = reply.content.metric_records["metrics"]
            metrics["class-losses"], metrics["class-counts"] = [0.3] * self.classes, [20] * self.classes
            metrics["num-examples"] = 20 * self.classes
            return reply

    strategy, grid = build(warmup_rounds=4, fraction_train=0.5), TwoLiars({1, 4}, silent=set(range(1, 6)))
    roles(strategy, 4, grid)
    assert [len(answer.losses) for answer in strategy.profiles] == [7]
    grid.classes, grid.silent = 3, set()
    roles(strategy, 5, grid)
    assert [len(answer.losses) for answer in strategy.profiles] == [3] * 6


@pytest.mark.parametrize("options", [{"warmup_rounds": -1}, {"reprofile_every": -1}])
def test_negative_numbers_of_rounds_are_refused(options: dict[str, int]):
    with pytest.raises(ValueError, match="must be at least 0"):
        build(**options)


USEFUL = {"strategy.name": "noise-partition", "num-server-rounds": 60, "method.name": "masked-optim"}


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"num-server-rounds": 30}, "ends before clean and noisy clients are told apart"),
        ({"federation.num-clients": 3}, "with fewer than 4 all count as clean"),
        ({"privacy.mode": "local"}, "loss profiles are sent without noise"),
    ],
)
def test_what_makes_the_strategy_idle_or_leaky_is_warned_about(changes: dict[str, Any], warning: str):
    flat = USEFUL | changes
    assert any(warning in line for line in warning_lines(flat))


def test_a_useful_configuration_gets_no_remark():
    assert warning_lines(USEFUL) == []
    assert warning_lines(USEFUL | {"method.name": "sgd", "strategy.aggregator": "distance-aware"}) == []
