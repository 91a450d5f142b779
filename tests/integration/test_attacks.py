"""Hostile clients in a run: what is recorded, what it does to the model, and that real nodes refuse."""

from pathlib import Path

import pytest

from benchmarks.in_process import rounds
from client_app.app import app as client_app
from server_app.registration import FederationError, register_clients
from server_app.report import headline, read_run
from server_app.run import run_training
from server_app.validation.config import check
from tasks.config import DEFAULTS, ConfigError
from tasks.protocol import MessageHeader, Mode
from tests.integration.conftest import QUICK, Play, Played
from tests.integration.local_grid import LocalGrid
from tests.issues import warning_lines
from tests.messages import PlainDownload

ATTACKED = {"attack__name": "sign-flip", "attack__share": 0.5}
LEARNING = {"loss__name": "ce", "noise__name": "none", "strategy__aggregator": "mean", "train__augment": False}


def registration(run: Played) -> list[dict[str, object]]:
    return [line for line in run.lines("clients.jsonl") if line["round"] == 0]


def first_losses(run: Played) -> dict[int, float]:
    return {line["client"]: line["train_loss"] for line in run.lines("clients.jsonl") if line["round"] == 1}


def test_the_record_says_who_is_hostile_and_keeps_the_truth_about_labels(play: Play):
    honest, attacked = play(), play(**{**ATTACKED, "attack__name": "label-flip"})
    assert all("attacker" not in line for line in registration(honest))
    assert sorted(line["attacker"] for line in registration(attacked)) == [False, False, True, True]
    truths = [{key: value for key, value in line.items() if key != "attacker"} for line in registration(attacked)]
    assert truths == registration(honest)
    hostile = {line["client"] for line in registration(attacked) if line["attacker"]}
    before, after = first_losses(honest), first_losses(attacked)
    assert {client for client in before if before[client] != after[client]} == hostile


def test_the_report_marks_hostile_clients(play: Play):
    run = play(**ATTACKED)
    page = (run.path / "report.html").read_text()
    assert page.count('<span class="mark skip">hostile</span>') == 2
    assert "2 of 4 clients are hostile (attack sign-flip from round 1) and received" in page
    assert "4 clients, 2 of them hostile" in headline(read_run(run.path))
    assert "hostile</span>" not in (play().path / "report.html").read_text()


def test_a_backdoor_opens_where_the_rule_is_the_mean(play: Play):
    shared = {**LEARNING, "num_server_rounds": 6, "train__epochs": 2, "attack__share": 0.5}
    backdoor = {"attack__name": "backdoor", "attack__args": "target = 3, size = 3, share = 0.3, scale = 2.0"}
    closed = play(**shared, **backdoor, attack__start_round=7)
    opened = play(**shared, **backdoor)
    assert closed.metrics[-1]["backdoor_success"] < 0.3
    assert opened.metrics[-1]["backdoor_success"] > 0.7
    assert opened.metrics[-1]["accuracy"] > 0.6
    assert "Backdoor success" in (opened.path / "report.html").read_text()


def test_sign_flip_ruins_the_mean_from_its_first_round_on(play: Play):
    shared = {**LEARNING, "num_server_rounds": 6, "attack__share": 0.5, "attack__args": "scale = 2.0"}
    honest = play(**LEARNING, num_server_rounds=6)
    late = play(**shared, attack__name="sign-flip", attack__start_round=4)
    assert late.metrics[:4] == honest.metrics[:4]
    assert honest.metrics[-1]["accuracy"] - late.metrics[-1]["accuracy"] > 0.2
    assert "backdoor_success" not in late.metrics[-1]


def test_colluders_reply_with_one_update(play: Play):
    run = play(attack__name="inner-product", attack__share=0.5, strategy__aggregator="mean")
    hostile = {line["client"] for line in registration(run) if line["attacker"]}
    distances = {line["client"]: line["distance"] for line in run.lines("clients.jsonl") if line["round"] == 1}
    assert len({distances[client] for client in hostile}) == 1
    assert len(set(distances.values())) == 3


def test_a_run_under_attack_resumes_exactly(play: Play):
    chosen = {"attack__name": "alie", "attack__args": "z = 1.0", "attack__share": 0.5, "run__early_stopping": 9}
    whole, half = play(num_server_rounds=4, **chosen), play(num_server_rounds=2, **chosen)
    resumed = play(num_server_rounds=4, run__resume=str(half.path), **chosen)
    assert resumed.metrics == whole.metrics
    assert resumed.weights() == whole.weights()


def test_the_server_ends_a_run_with_hostile_real_nodes_before_it_asks_them(tmp_path: Path):
    flat = {**DEFAULTS, **QUICK, "attack.name": "sign-flip", "attack.share": 0.5, "run.output-dir": str(tmp_path)}
    grid = LocalGrid(client_app, flat, 4)
    asked: list[int] = []
    grid.tamper = lambda client, message, reply: asked.append(client) or reply
    with pytest.raises(FederationError, match=r"attacks are made in a simulation only.*remove attack\.\*"):
        run_training(grid, check(flat), Mode.DEPLOYMENT)
    assert asked == []


def test_a_real_node_refuses_to_be_hostile_whatever_the_server_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server_app.transport.replies.ReplyDownload", PlainDownload)
    flat = {**DEFAULTS, **QUICK, "attack.name": "sign-flip"}
    with pytest.raises(FederationError, match="0 of 4 clients are ready") as caught:
        register_clients(
            LocalGrid(client_app, flat, 4), check({**QUICK}).federation, MessageHeader(client=-1), Mode.DEPLOYMENT
        )
    assert "these are real nodes; remove attack.*" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack.name": "lable-flip"}, "unknown attack 'lable-flip'; did you mean 'label-flip'?"),
        ({"attack.name": "alie", "attack.args": "y = 1"}, "attack 'alie'"),
        ({"attack.name": "alie", "attack.share": 0.25}, "one hostile client has no standard deviation"),
        ({"attack.name": "sign-flip", "attack.share": 0.1}, "none of 4 clients would be hostile"),
        ({"attack.name": "sign-flip", "attack.share": 1.5}, "attack.share = 1.5: must be at least 0.0 and at most 1.0"),
    ],
)
def test_a_wrong_attack_is_found_before_the_run(changes: dict[str, object], message: str):
    with pytest.raises(ConfigError) as caught:
        check({**DEFAULTS, **QUICK, **changes})  # type: ignore[dict-item]
    assert message in str(caught.value)


def test_remarks_on_attacks():
    def said(**changes: object) -> list[str]:
        return warning_lines({**DEFAULTS, **QUICK, **{f"attack.{key}": value for key, value in changes.items()}})

    assert said(name="sign-flip", share=1.0) == ["attack.share = 1.0: all 4 clients are hostile"]
    late = said(name="sign-flip", **{"start-round": 9})
    assert late == ["attack.start-round = 9: the run ends before the attack begins"]
    assert said(share=0.5) == ["attack.share has no effect: there is no attack"]


@pytest.mark.parametrize(
    "chosen",
    [{}, {"attack.name": "inner-product", "attack.share": 0.5}, {"method.name": "tests.integration.counting:Counting"}],
    ids=["honest", "attacked", "stateful method"],
)
def test_the_federation_of_the_benchmarks_gives_the_numbers_of_the_app(play: Play, chosen: dict[str, object]):
    changes = {key.replace(".", "__").replace("-", "_"): value for key, value in chosen.items()}
    lines = list(rounds(check({**DEFAULTS, **QUICK, **chosen})))  # type: ignore[dict-item]
    expected = [(line["round"], line["accuracy"], line["loss"]) for line in play(**changes).metrics[1:]]
    assert [(line["round"], line["accuracy"], line["loss"]) for line in lines] == expected


def test_a_factor_searched_against_the_aggregator_resumes_exactly_and_all_colluders_send_the_same(play: Play):
    chosen = {"attack__name": "optimal-alie", "attack__args": "evaluations = 6", "attack__share": 0.5}
    chosen |= {"strategy__aggregator": "median", "run__early_stopping": 9}
    whole, half = play(num_server_rounds=3, **chosen), play(num_server_rounds=1, **chosen)
    resumed = play(num_server_rounds=3, run__resume=str(half.path), **chosen)
    assert resumed.weights() == whole.weights()
    hostile = {line["client"] for line in registration(whole) if line["attacker"]}
    distances = {line["client"]: line["distance"] for line in whole.lines("clients.jsonl") if line["round"] == 1}
    assert len({distances[client] for client in hostile}) == 1
    assert len(set(distances.values())) == 3
