"""The strategy that tells clients apart where only some train in a round: when it asks, and whom it believes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from strategies.noise_partition import NoisePartition
from tests.issues import warning_lines
from tests.messages import MODEL, answer, record
from tests.unit.server_app.storage.test_strategy_state import through_a_file
from tests.unit.strategies.test_noise_partition import Answers, build, expected, roles

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
def test_in_turn_noisy_clients_are_found_although_training_changes_losses_by_more(seed: int):
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


def test_with_all_clients_in_every_round_turns_change_nothing():
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


def test_a_warm_up_in_which_some_have_trained_more_often_is_remarked_on():
    flat = {"strategy.name": "noise-partition", "federation.num-clients": 20, "federation.fraction-train": 0.1}
    short, long = ({"strategy.args": f"warmup_rounds = {rounds}", "num-server-rounds": 40} for rounds in (18, 19))
    assert any("compared fairly after 19" in line for line in warning_lines(flat | short))
    assert not any("compared fairly" in line for line in warning_lines(flat | long))
