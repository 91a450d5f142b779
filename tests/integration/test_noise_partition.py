"""Runs in which clients are told apart: real ServerApp and ClientApp code, in this process."""

import logging
from typing import Any

import pytest
from flwr.app import Message

from server_app.validation.config import check
from tests.integration.conftest import Play, Played
from tests.integration.local_grid import Tamper
from tests.issues import warning_lines

SETTINGS: dict[str, Any] = {
    "strategy__name": "noise-partition",
    "strategy__args": "warmup_rounds = 3",
    "loss__name": "la-ce",
    "num_server_rounds": 5,
    "federation__num_clients": 6,
    "train__epochs": 2,
    "train__batch_size": 16,
    "noise__rates": "groups",
    "noise__rates_args": "groups = [{clients = 4, rate = 0.0}, {clients = 2, rate = 0.6}]",
    "audit__enabled": False,
}


def roles(run: Played, server_round: int) -> dict[int, str]:
    """The role of each client in a round."""
    return {line["client"]: line["role"] for line in run.lines("clients.jsonl") if line["round"] == server_round}


def noisy_clients(run: Played) -> set[int]:
    """The clients that have wrong labels."""
    return {line["client"] for line in run.lines("clients.jsonl") if line["round"] == 0 and line["noise_rate"] > 0}


def on_profile(change: Tamper) -> Tamper:
    """Tamper with answers to the question about losses only."""

    def tamper(client: int, message: Message, reply: Message) -> Message | list[Message] | None:
        return change(client, message, reply) if message.metadata.message_type == "query.profile" else reply

    return tamper


@pytest.mark.parametrize("detector", ["robust", "official"])
def test_after_the_warm_up_noisy_clients_are_known_and_recorded(play: Play, detector: str):
    run = play(**SETTINGS | {"strategy__args": f"warmup_rounds = 3, detector = '{detector}'"})
    wrong = noisy_clients(run)
    assert len(wrong) == 2
    for server_round in (1, 2, 3):
        assert set(roles(run, server_round).values()) == {"unknown"}
    for server_round in (4, 5):
        assert roles(run, server_round) == {c: "noisy" if c in wrong else "clean" for c in range(6)}
    last = [line for line in run.lines("clients.jsonl") if line["round"] == 5]
    assert all((line["posterior"] > 0.5) == (line["client"] in wrong) for line in last)


@pytest.mark.parametrize(("round_robin_sampling", "rounds"), [("true", ["3", "4"]), ("false", ["4"])])
def test_questions_go_to_all_and_only_losses_and_counts_come_back(
    play: Play, round_robin_sampling: str, rounds: list[str]
):
    answers: list[tuple[str, int, set[str]]] = []

    def watch(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "query.profile":
            assert not reply.content.array_records
            (metrics,) = reply.content.metric_records.values()
            answers.append((message.metadata.group_id, client, set(metrics)))
            assert sum(metrics["class-counts"]) == metrics["num-examples"]  # type: ignore[arg-type]
        return reply

    args = f"warmup_rounds = 3, round_robin_sampling = {round_robin_sampling}"
    run = play(watch, **SETTINGS | {"strategy__args": args}, federation__fraction_train=0.5)
    asked = [(server_round, client) for server_round, client, _ in answers]
    assert sorted(asked) == [(server_round, client) for server_round in rounds for client in range(6)]
    trained = [frozenset(roles(run, server_round)) for server_round in range(1, 6)]
    assert [len(clients) for clients in trained] == [3] * 5
    assert (len(set(trained)) == 2) == (round_robin_sampling == "true"), (
        "in turn the same halves take part again and again"
    )
    assert {frozenset(keys) for _, _, keys in answers} == {frozenset({"num-examples", "class-losses", "class-counts"})}


@pytest.mark.parametrize("cohort", ["off", "6"])
def test_profiles_may_come_with_the_training_and_change_nothing_of_it(play: Play, cohort: str):
    kinds: list[str] = []
    profiles: dict[tuple[int, int], list[float]] = {}

    def watch(client: int, message: Message, reply: Message) -> Message:
        kinds.append(message.metadata.message_type)
        (metrics,) = reply.content.metric_records.values()
        if "class-losses" in metrics:
            profiles[int(message.metadata.group_id), client] = metrics["class-losses"]  # type: ignore[assignment]
        return reply

    reporting = SETTINGS | {"strategy__args": "warmup_rounds = 3, profile_while_training = true"}
    run = play(watch, **reporting, train__cohort=cohort)
    wrong = noisy_clients(run)
    assert "query.profile" not in kinds
    assert roles(run, 4) == roles(run, 5) == {c: "noisy" if c in wrong else "clean" for c in range(6)}
    assert len(profiles) == 5 * 6
    reported = dict(profiles)
    profiles.clear()
    plain = play(watch, **SETTINGS, train__cohort=cohort)
    assert [line["accuracy"] for line in plain.metrics] == [line["accuracy"] for line in run.metrics]
    assert profiles == {key: reported[key] for key in profiles}, "the answers to the question before round 4"
    assert {server_round for server_round, _ in profiles} == {4}


def test_where_all_sites_are_noisy_each_is_judged_by_itself(play: Play):
    all_noisy = {"noise__rates_args": "groups = [{clients = 6, rate = 0.5}]"}
    judged = SETTINGS | all_noisy | {"strategy__args": "warmup_rounds = 3, detector = 'noise-rate'"}
    assert set(roles(play(**judged), 5).values()) == {"noisy"}
    assert set(roles(play(**SETTINGS | all_noisy), 5).values()) == {"clean"}


def test_clients_learn_their_role_and_how_long_it_has_been_known(play: Play):
    told: list[tuple[int, int, str, int]] = []

    def watch(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train":
            config, header = (message.content.config_records[name] for name in ("config", "winnow"))
            assert config["role"] == header["role"]
            since = config["rounds-since-detection"]
            assert config["learned-labels"] == (config["role"] == "noisy" and int(str(since)) == 1)
            told.append((int(message.metadata.group_id), client, str(config["role"]), int(str(since))))
        return reply

    run = play(watch, **SETTINGS)
    assert {(server_round, since) for server_round, _, _, since in told} == {(1, 0), (2, 0), (3, 0), (4, 0), (5, 1)}
    assert {client for server_round, client, role, _ in told if (server_round, role) == (5, "noisy")} == noisy_clients(
        run
    )


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("first", [3, 4], ids=["before the last question", "after the last question"])
def test_a_run_resumed_around_the_question_equals_an_uninterrupted_one(play: Play, first: int, share: float):
    settings = SETTINGS | {"federation__fraction_train": share}
    whole = play(**settings)
    half = play(**settings | {"num_server_rounds": first})
    resumed = play(**settings, run__resume=str(half.path))
    assert resumed.metrics == whole.metrics
    assert resumed.lines("clients.jsonl") == whole.lines("clients.jsonl")
    assert resumed.weights() == whole.weights()


def change_values(reply: Message, **changes: Any) -> Message:
    """Put other values into an answer; None removes one."""
    metrics = reply.content["metrics"]
    for key, value in changes.items():
        name = key.replace("_", "-")
        if value is None:
            del metrics[name]  # type: ignore[union-attr]
        else:
            metrics[name] = value  # type: ignore[index]
    return reply


BAD: dict[str, tuple[Tamper, str]] = {
    "silence": (lambda client, message, reply: None, "no answer in time"),
    "not finite": (lambda c, m, r: change_values(r, class_losses=[float("nan")] * 10), "must be finite numbers"),
    "wrong length": (lambda c, m, r: change_values(r, class_losses=[1.0] * 9), "one number of each for every class"),
    "negative": (lambda c, m, r: change_values(r, class_losses=[-1.0] * 10), "must be finite numbers"),
    "other counts": (lambda c, m, r: change_values(r, class_counts=[1] * 10), "add up to its"),
    "no counts": (lambda c, m, r: change_values(r, class_counts=None), "one number of each for every class"),
    "more classes": (
        lambda c, m, r: change_values(
            r,
            class_losses=[1.0] * 11,
            class_counts=[*list(r.content["metrics"]["class-counts"]), 0],  # type: ignore[index,call-overload,arg-type]
        ),
        "11 classes, but most clients have 10",
    ),
    "no metrics": (
        lambda c, m, r: Message(type(r.content)(), reply_to=m),
        "expected one set of metrics, got 0",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_costs_a_client_its_role_and_nobody_else(play: Play, caplog: pytest.LogCaptureFixture, kind: str):
    change, reason = BAD[kind]
    with caplog.at_level(logging.WARNING, "flwr"):
        run = play(
            on_profile(lambda client, message, reply: change(client, message, reply) if client == 0 else reply),
            **SETTINGS,
        )
    wrong = noisy_clients(run)
    expected = {c: "noisy" if c in wrong else "clean" for c in range(1, 6)}
    assert roles(run, 5) == {0: "unknown", **expected}
    said = [record.getMessage() for record in caplog.records if "No loss profile of client 0" in record.getMessage()]
    assert len(said) == 2, "asked twice, then no longer waited for"
    assert all(reason in line for line in said)
    last = [line for line in run.lines("clients.jsonl") if line["round"] == 5 and line["client"] == 0]
    assert last[0]["posterior"] is None
    assert run.status["status"] == "completed"


def test_an_answer_given_twice_counts_once(play: Play):
    def twice(client: int, message: Message, reply: Message) -> list[Message]:
        return [reply, reply]

    run, plain = play(on_profile(twice), **SETTINGS), play(**SETTINGS)
    assert run.lines("clients.jsonl") == plain.lines("clients.jsonl")


def test_a_client_that_answers_late_is_judged_then(play: Play):
    def late(client: int, message: Message, reply: Message) -> Message | None:
        return None if client == 5 and message.metadata.group_id == "4" else reply

    run = play(on_profile(late), **SETTINGS)
    assert roles(run, 4)[5] == "unknown"
    assert roles(run, 5) == {c: "noisy" if c in noisy_clients(run) else "clean" for c in range(6)}


def test_profiles_can_be_asked_for_again(play: Play):
    rounds: set[str] = set()

    def watch(client: int, message: Message, reply: Message) -> Message:
        rounds.add(message.metadata.group_id)
        return reply

    changes = {"strategy__args": "warmup_rounds = 1, reprofile_every = 2", "num_server_rounds": 6}
    play(on_profile(watch), **SETTINGS | changes)
    assert rounds == {"2", "4", "6"}


def test_without_any_usable_answer_the_run_goes_on(play: Play):
    run = play(on_profile(lambda client, message, reply: None), **SETTINGS)
    assert set(roles(run, 5).values()) == {"unknown"}
    assert run.status["status"] == "completed"


def test_among_clean_clients_and_among_three_nobody_is_called_noisy(play: Play, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "flwr"):
        clean = play(**SETTINGS | {"noise__name": "none", "noise__rates": "linear", "noise__rates_args": "max = 0.4"})
        few = play(
            **SETTINGS | {"federation__num_clients": 3, "noise__rates": "linear", "noise__rates_args": "max = 0.8"}
        )
    assert set(roles(clean, 5).values()) == {"clean"}
    assert set(roles(few, 5).values()) == {"clean"}
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "BIC prefers one group" in said
    assert "3 clients: two groups need at least 4" in said


def test_a_warm_up_longer_than_the_run_is_remarked_on_and_leaves_all_unknown(play: Play):
    changes = SETTINGS | {"strategy__args": "warmup_rounds = 5"}
    run = play(**changes)
    assert {role for r in range(1, 6) for role in roles(run, r).values()} == {"unknown"}
    flat = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    assert any("ends before clean and noisy clients are told apart" in line for line in warning_lines(flat))
    assert check(flat).strategy.name == "noise-partition"
