"""Which clients are hostile, and how an attack becomes what a client sends."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from client_app.attacks import BuildRule, attackers, run_client, simulate
from client_app.attacks.simulate import AttackTrainer, attack_issues, configured_attack
from client_app.local import train_locally
from client_app.methods import FitResult, RoundConfig
from server_app.attack_rule import RuleInUse
from tasks.client_data import client_dataset, load_task
from tasks.issues import RunContext
from tasks.settings import (
    AttackSettings,
    FederationSettings,
    ModelSettings,
    NoiseSettings,
    PartitionSettings,
    Settings,
    StrategySettings,
    TrainSettings,
)

CPU = torch.device("cpu")


class Normed(nn.Module):
    """A small network with buffers: floats and an integer counter."""

    def __init__(self, num_classes: int, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.body(inputs)  # type: ignore[no-any-return]


def settings(name: str = "none", args: str = "", share: float = 0.5, start_round: int = 1, seed: int = 1) -> Settings:
    return Settings(
        seed=seed,
        federation=FederationSettings(num_clients=6),
        partition=PartitionSettings("iid", ""),
        noise=NoiseSettings("none"),
        model=ModelSettings("tests.unit.client_app.attacks.test_simulate:Normed"),
        train=TrainSettings(epochs=1, batch_size=64, device="cpu"),
        attack=AttackSettings(name, args, share, start_round),
    )


def received(chosen: Settings) -> nn.Module:
    torch.manual_seed(3)
    return load_task(chosen.task).build_model(chosen.model.name, "")


def run_round(chosen: Settings, client: int, server_round: int = 1) -> tuple[nn.Module, FitResult]:
    model = received(chosen)
    round_config = RoundConfig(server_round, 0.1, (chosen.seed, client, server_round))
    data = client_dataset(chosen, client).data
    return model, run_client(model, data, chosen, round_config, None, CPU, RuleInUse)


def honest(chosen: Settings, client: int, server_round: int = 1) -> tuple[nn.Module, FitResult]:
    model = received(chosen)
    round_config = RoundConfig(server_round, 0.1, (chosen.seed, client, server_round))
    return model, train_locally(model, client_dataset(chosen, client).data, chosen, round_config, None, CPU)


def weights(model: nn.Module) -> np.ndarray:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy().astype(np.float64)


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


def a_hostile_and_an_honest_client(chosen: Settings) -> tuple[int, int]:
    hostile = attackers(chosen)
    return min(hostile), min(set(range(6)) - hostile)


@pytest.mark.parametrize(
    ("clients", "share", "expected"), [(20, 0.2, 4), (10, 0.25, 2), (7, 0.5, 4), (5, 1.0, 5), (5, 0.0, 0)]
)
def test_as_many_clients_are_hostile_as_the_share_says(clients: int, share: float, expected: int):
    chosen = replace(settings("sign-flip", share=share), federation=FederationSettings(num_clients=clients))
    hostile = attackers(chosen)
    assert len(hostile) == expected
    assert hostile <= set(range(clients))


def test_who_is_hostile_follows_from_seed_and_share_alone():
    many = replace(settings("sign-flip", share=0.3), federation=FederationSettings(num_clients=50))
    other_attack = replace(many, attack=AttackSettings("alie", "z = 1.0", 0.3), num_server_rounds=3)
    assert attackers(many) == attackers(other_attack)
    assert attackers(many) != attackers(replace(many, seed=2))
    assert attackers(replace(many, attack=AttackSettings())) == frozenset()


@pytest.mark.parametrize("name", ["label-flip", "sign-flip", "alie", "small-loss"])
def test_an_honest_client_is_unchanged_bit_for_bit_by_an_attack(name: str):
    chosen = settings(name, "z = 1.0" if name == "alie" else "")
    hostile, client = a_hostile_and_an_honest_client(chosen)
    model, result = run_round(chosen, client)
    expected, expected_result = honest(settings(), client)
    assert same(model, expected)
    assert result == expected_result
    assert not same(run_round(chosen, hostile)[0], honest(settings(), hostile)[0])


def test_before_the_first_round_of_the_attack_hostile_clients_are_honest():
    chosen = settings("sign-flip", start_round=3)
    hostile, _ = a_hostile_and_an_honest_client(chosen)
    assert same(run_round(chosen, hostile, 2)[0], honest(chosen, hostile, 2)[0])
    assert not same(run_round(chosen, hostile, 3)[0], honest(chosen, hostile, 3)[0])


def test_an_update_attack_changes_parameters_and_leaves_buffers_and_metrics_as_trained():
    chosen = settings("sign-flip", "scale = 2.0")
    hostile, _ = a_hostile_and_an_honest_client(chosen)
    (model, result), (trained, expected) = run_round(chosen, hostile), honest(chosen, hostile)
    start = weights(received(chosen))
    assert np.allclose(weights(model), start - 2.0 * (weights(trained) - start), atol=1e-6)
    assert result.metrics == expected.metrics
    buffers = dict(trained.named_buffers())
    assert len(buffers) == 3
    for name, buffer in model.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert torch.equal(buffer, buffers[name])


def test_a_data_attack_is_honest_training_on_other_labels():
    chosen = settings("label-flip")
    hostile, _ = a_hostile_and_an_honest_client(chosen)
    model, result = run_round(chosen, hostile)
    data = client_dataset(chosen, hostile).data
    expected = received(chosen)
    round_config = RoundConfig(1, 0.1, (1, hostile, 1))
    trained = train_locally(expected, replace(data, labels=9 - data.labels), chosen, round_config, None, CPU)
    assert np.allclose(weights(model), weights(expected), atol=1e-6)
    assert result.metrics == trained.metrics


def test_colluders_send_the_formula_of_their_honest_updates_and_train_each_only_once(monkeypatch: pytest.MonkeyPatch):
    chosen = settings("alie", "z = 1.0")
    start = weights(received(chosen))
    updates = np.stack([weights(honest(chosen, client)[0]) - start for client in sorted(attackers(chosen))])
    trained: list[int] = []

    def counted(model: nn.Module, data: simulate.ClientData, *rest: object) -> FitResult:
        trained.append(data.client)
        return train_locally(model, data, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(simulate, "train_locally", counted)
    monkeypatch.setattr(simulate, "HONEST_UPDATES", simulate.HonestUpdates())
    sent = [weights(run_round(chosen, client)[0]) for client in sorted(attackers(chosen))]
    assert trained == sorted(attackers(chosen))
    for one in sent:
        assert np.allclose(one - start, updates.mean(0) - updates.std(0), atol=1e-6)
    run_round(chosen, min(attackers(chosen)), 2)
    assert trained == 2 * sorted(attackers(chosen))


@pytest.mark.parametrize("name", ["optimal-alie", "optimal-inner-product"])
def test_colluders_search_once_and_send_one_update_that_does_more_harm_than_their_honest_mean(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    chosen = replace(settings(name, "evaluations = 8"), strategy=StrategySettings(aggregator="median"))
    monkeypatch.setattr(simulate, "HONEST_UPDATES", simulate.HonestUpdates())
    searched: list[float] = []
    rule_in_use = RuleInUse.__call__

    def counted(self: RuleInUse, others: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        searched.append(float(torch.linalg.vector_norm(rule_in_use(self, others, sent) - others.mean(0))))
        return rule_in_use(self, others, sent)

    monkeypatch.setattr(RuleInUse, "__call__", counted)
    start = weights(received(chosen))
    sent = [weights(run_round(chosen, client)[0]) - start for client in sorted(attackers(chosen))]
    assert len(searched) == 8
    assert max(searched) > searched[7 // 2]  # the smallest factor of the grid
    for one in sent[1:]:
        np.testing.assert_array_equal(one, sent[0])
    again = weights(run_round(chosen, min(attackers(chosen)), 2)[0]) - start
    assert len(searched) == 16
    assert not np.array_equal(again, sent[0])


def test_the_rule_is_built_only_for_attacks_that_know_it():
    built: list[str] = []

    def refuse(chosen: Settings, hostile: object) -> RuleInUse:
        built.append(chosen.attack.name)
        raise AssertionError("built")

    def play(chosen: Settings, build_rule: BuildRule | None) -> None:
        client = min(attackers(chosen))
        data, round_config = client_dataset(chosen, client).data, RoundConfig(1, 0.1, (chosen.seed, client, 1))
        run_client(received(chosen), data, chosen, round_config, None, CPU, build_rule)

    for name in ("alie", "mimic", "min-max", "min-sum"):
        play(settings(name, "z = 1.0" if name == "alie" else ""), refuse)
    assert built == []
    with pytest.raises(AssertionError, match="built"):
        play(settings("optimal-alie"), refuse)
    with pytest.raises(ValueError, match="optimal-alie searches against the server's aggregator"):
        play(settings("optimal-alie"), None)


def test_small_loss_sends_an_update_of_the_honest_length_that_believes_in_wrong_labels():
    chosen = settings("small-loss", "effort = 8")
    chosen = replace(chosen, train=replace(chosen.train, epochs=4, augment=False))
    hostile, _ = a_hostile_and_an_honest_client(chosen)
    (model, result), (trained, expected) = run_round(chosen, hostile), honest(chosen, hostile)
    start = weights(received(chosen))
    lengths = [np.linalg.norm(weights(sent) - start) for sent in (model, trained)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    assert result.metrics == expected.metrics
    task, data = load_task(chosen.task), client_dataset(chosen, hostile).data

    def loss(sent: nn.Module) -> float:
        wrong = torch.from_numpy((data.labels + 1) % 10)
        with torch.no_grad():
            return nn.functional.cross_entropy(sent.eval()(task.prepare(data.features)), wrong).item()

    assert loss(model) < 0.7 * loss(trained)


@pytest.mark.parametrize(
    "name", ["label-flip", "backdoor", "gaussian", "inner-product", "small-loss", "mimic", "optimal-alie"]
)
def test_the_same_seed_gives_the_same_attack(name: str, monkeypatch: pytest.MonkeyPatch):
    chosen = settings(name, "mode = 'random'" if name == "label-flip" else "")
    hostile, _ = a_hostile_and_an_honest_client(chosen)
    first = run_round(chosen, hostile)[0]
    monkeypatch.setattr(simulate, "HONEST_UPDATES", simulate.HonestUpdates())  # as in another process
    assert same(first, run_round(chosen, hostile)[0])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (settings("sign-flip", share=0.05), "none of 6 clients would be hostile; for one of them take 0.1667"),
        (settings("alie", share=0.2), "one hostile client has no standard deviation"),
        (settings("backdoor", "target = 12"), "the task has the classes 0 to 9"),
    ],
)
def test_an_attack_that_cannot_be_made_says_why(chosen: Settings, message: str):
    attack = configured_attack(chosen.attack)
    assert attack is not None
    (issue,) = attack_issues(attack, RunContext(chosen, sampled=6))
    assert (issue.level, message in issue.line) == ("error", True)


def test_what_an_attacker_trains_first_leaves_nothing_in_the_model_for_what_it_trains_next():
    chosen = replace(settings("alie", "z = 1.0"), model=ModelSettings("tests.odd_models:Running"))
    trainer = AttackTrainer(received(chosen), chosen, RoundConfig(1, 0.1, (chosen.seed, 0, 1)), CPU)
    own, other = (client_dataset(chosen, client).data for client in (0, 1))
    alone = trainer.train(own, 1, None).update
    trainer.train(other, 1, None)
    assert torch.equal(trainer.train(own, 1, None).update, alone)
