"""The strategy that tells noisy clients from clean ones, without clients that train: whom it asks and believes."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from strategies.aggregators import AGGREGATORS
from strategies.noise_partition import NoisePartition, round_robin
from tests.issues import warning_lines
from tests.messages import MODEL, answer, record
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


def test_a_useful_configuration_gets_no_warning():
    assert warning_lines(USEFUL) == []
    assert warning_lines(USEFUL | {"method.name": "sgd", "strategy.aggregator": "distance-aware"}) == []


CLIENTS = 12


class Memory(Answers):
    """Clients whose loss falls when they train and rises again after it, each time by less than wrong labels add."""

    def __init__(self, noisy: set[int], silent: set[int] | None = None, clients: int = CLIENTS) -> None:
        super().__init__(noisy, silent, clients)
        self.trained: dict[int, list[int]] = {}
        self.now = 0

    def answer(self, message: Message) -> Message:
        client = message.metadata.dst_node_id
        memory = sum(1.5 * 0.5 ** (self.now - then) for then in self.trained.get(client, []))
        loss = 3.0 - 0.1 * self.now - memory + 0.4 * (client in self.noisy)
        values = {"num-examples": 60, "class-losses": [loss] * 3, "class-counts": [20] * 3}
        return Message(RecordDict({"metrics": MetricRecord(values)}), reply_to=message)


def play(strategy: NoisePartition, grid: Memory, rounds: Iterable[int]) -> dict[int, str]:
    """Play rounds, and return the roles that are known in the last one."""
    for server_round in rounds:
        grid.now = server_round
        for client in roles(strategy, server_round, grid):
            grid.trained.setdefault(client, []).append(server_round)
    return strategy.roles


def partial(**options: Any) -> NoisePartition:
    return build(**{"warmup_rounds": 8, "fraction_train": 0.25} | options)


@pytest.mark.parametrize("seed", range(5))
def test_with_round_robin_sampling_noisy_clients_are_found_although_training_changes_losses_by_more(seed: int):
    noisy = {0, 3, 4, 7}
    assert play(partial(seed=seed), Memory(noisy), range(1, 10)) == expected(noisy, CLIENTS)


def test_drawn_at_random_who_trained_lately_passes_for_clean():
    wrong = [
        sum(role != expected({0, 3, 4, 7}, CLIENTS)[client] for client, role in found.items())
        for found in (
            play(partial(seed=s, round_robin_sampling=False), Memory({0, 3, 4, 7}), range(1, 10)) for s in range(5)
        )
    ]
    assert min(wrong) > 0


def test_all_are_asked_in_the_rounds_in_which_everybody_has_a_turn():
    strategy, grid = partial(), Memory({1})
    for server_round in range(1, 12):
        before = len(grid.asked)
        roles(strategy, server_round, grid)
        assert len(grid.asked) - before == (6 <= server_round <= 9)
    assert grid.asked == [list(range(CLIENTS))] * 4


def test_with_all_clients_in_every_round_the_sampling_changes_nothing():
    for round_robin_sampling in (True, False):
        strategy, grid = build(round_robin_sampling=round_robin_sampling), Answers({1, 4})
        assert [sorted(roles(strategy, number, grid)) for number in (1, 2, 3, 4)] == [list(range(6))] * 4
        assert grid.asked == [list(range(6))]


def test_who_misses_one_question_is_judged_all_the_same():
    class Late(Memory):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            self.silent = {2, 3} if self.now == 7 else set()
            return super().send_and_receive(messages, timeout=timeout)

    assert play(partial(), Late({0, 3, 4, 7}), range(1, 10)) == expected({0, 3, 4, 7}, CLIENTS)


def test_who_never_answers_costs_the_others_one_more_round_of_questions():
    strategy, grid = partial(), Memory({0, 3, 4, 7}, silent={5})
    assert 5 not in play(strategy, grid, range(1, 10))
    assert play(strategy, grid, range(10, 40)) == {c: r for c, r in expected({0, 3, 4, 7}, 12).items() if c != 5}
    assert len(grid.asked) == 8


def test_a_client_that_joins_is_judged_when_it_has_trained_as_the_others_have():
    strategy, grid = partial(), Memory({0, 3, 4, 7})
    play(strategy, grid, range(1, 13))
    grid.clients, grid.noisy = 13, {0, 3, 4, 7, 12}
    assert 12 not in play(strategy, grid, range(13, 20))
    assert play(strategy, grid, range(20, 22)) == expected({0, 3, 4, 7, 12}, 13)


def test_questions_for_the_next_judgement_begin_before_it():
    strategy, grid = partial(reprofile_every=2), Memory({0, 3, 4, 7})
    play(strategy, grid, range(1, 12))
    assert len(grid.asked) == 6, "rounds 6 to 9, then every round: roles are decided in rounds 9 and 11"
    assert strategy.roles == expected({0, 3, 4, 7}, CLIENTS)


def play_and_aggregate(strategy: NoisePartition, grid: Memory, rounds: Iterable[int]) -> list[dict[int, object]]:
    """Play rounds to their end, and return what the clients were told in each."""
    told = []
    for server_round in rounds:
        grid.now = server_round
        messages = list(strategy.configure_train(server_round, record(MODEL), ConfigRecord(), grid))  # type: ignore[arg-type]
        told.append({m.metadata.dst_node_id: dict(m.content.config_records["config"]) for m in messages})
        for client in told[-1]:
            grid.trained.setdefault(client, []).append(server_round)
        strategy.aggregate_train(server_round, [answer(client) for client in told[-1]])
    return told


@pytest.mark.parametrize("options", [{}, {"reprofile_every": 3}])
@pytest.mark.parametrize("last", range(15))
def test_a_restart_between_two_rounds_changes_nothing(last: int, options: dict[str, int], tmp_path: Path):
    whole, half, fresh = partial(**options), partial(**options), partial(**options)
    grid, other = Memory({0, 3, 4, 7}, silent={5}), Memory({0, 3, 4, 7}, silent={5})
    expected = play_and_aggregate(whole, grid, range(1, 15))
    play_and_aggregate(half, other, range(1, last + 1))
    through_a_file(half, fresh, tmp_path)
    assert play_and_aggregate(fresh, other, range(last + 1, 15)) == expected[last:]
    assert other.asked == grid.asked
    for name in ("judgements", "learned", "failures", "extra", "queue"):
        assert getattr(fresh, name) == getattr(whole, name), name
    assert whole.learned
    assert fresh.report == whole.report or last == 14


def test_a_warm_up_in_which_some_have_trained_more_often_is_warned_about():
    flat = {"strategy.name": "noise-partition", "federation.num-clients": 20, "federation.fraction-train": 0.1}
    short, long = ({"strategy.args": f"warmup_rounds = {rounds}", "num-server-rounds": 40} for rounds in (18, 19))
    assert any("compared fairly after 19" in line for line in warning_lines(flat | short))
    assert not any("compared fairly" in line for line in warning_lines(flat | long))


NOBODY: list[int] = []


def draws(rounds: int, clients: int, size: int, seed: int = 0) -> list[list[int]]:
    queue, drawn = NOBODY, []
    for _ in range(rounds):
        now, queue = round_robin(queue, range(clients), size, seed)
        drawn.append(now)
    return drawn


@pytest.mark.parametrize(("clients", "size"), [(20, 6), (20, 5), (7, 3), (5, 1), (4, 4)])
def test_nobody_trains_twice_as_long_as_somebody_waits(clients: int, size: int):
    counts: Counter[int] = Counter(dict.fromkeys(range(clients), 0))
    for drawn in draws(50, clients, size):
        assert len(set(drawn)) == size
        counts.update(drawn)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_every_client_comes_back_after_the_same_number_of_rounds():
    drawn = draws(30, 20, 5)
    for client in range(20):
        rounds = [i for i, now in enumerate(drawn) if client in now]
        assert {later - earlier for earlier, later in pairwise(rounds)} == {4}


def test_the_order_follows_from_the_seed():
    assert draws(4, 20, 5, seed=1) == draws(4, 20, 5, seed=1) != draws(4, 20, 5, seed=2)


def test_a_new_client_is_next_and_the_others_keep_their_order():
    _, queue = round_robin(NOBODY, range(6), 2, 0)
    now, longer = round_robin(queue, range(7), 1, 0)
    assert now == [6]
    assert longer == [*queue, 6]


def test_a_client_that_is_gone_is_skipped():
    _, queue = round_robin(NOBODY, range(6), 2, 0)
    first = queue[0]
    now, shorter = round_robin(queue, set(range(6)) - {first}, 2, 0)
    assert now == sorted(queue[1:3])
    assert first not in shorter
