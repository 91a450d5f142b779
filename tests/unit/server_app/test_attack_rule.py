"""The rule that attackers know is the server's own, and only simulated clients are told how it is built."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from server_app.attack_rule import RuleInUse, rule_path
from strategies.aggregators import aggregate, build_aggregator
from tasks.plugins import load_object
from tasks.protocol import Mode
from tasks.settings import AttackSettings, FederationSettings, Settings, StrategySettings

HOSTILE = frozenset({3, 7, 11, 19})


def settings(aggregator: str = "mean", args: str = "", before: str = "", fraction: float = 1.0) -> Settings:
    strategy = StrategySettings(aggregator=aggregator, aggregator_args=args, pre_aggregators=before)
    return Settings(federation=FederationSettings(num_clients=20, fraction_train=fraction), strategy=strategy)


@pytest.mark.parametrize("attack", ["none", "alie"])
def test_nothing_is_said_where_no_attack_knows_the_rule(attack: str):
    assert rule_path(replace(settings(), attack=AttackSettings(name=attack, share=0.2)), Mode.SIMULATION) == ""


def test_simulated_clients_are_told_how_it_is_built_and_real_nodes_are_not():
    chosen = replace(settings(), attack=AttackSettings(name="optimal-alie", share=0.2))
    assert load_object(rule_path(chosen, Mode.SIMULATION)) is RuleInUse
    assert rule_path(chosen, Mode.DEPLOYMENT) == ""


@pytest.mark.parametrize(("fraction", "honest", "hostile"), [(1.0, 16, 4), (0.5, 8, 2), (0.1, 1, 1)])
def test_the_imagined_round_has_the_shares_of_a_real_one(fraction: float, honest: int, hostile: int):
    rule = RuleInUse(settings(fraction=fraction), HOSTILE)
    assert (rule.num_honest, rule.num_hostile) == (honest, hostile)
    others = torch.from_numpy(np.random.default_rng(3).standard_normal((honest, 5)))
    expected = (others.sum(0) + hostile * 7) / (honest + hostile)
    np.testing.assert_allclose(rule(others, torch.full((5,), 7.0, dtype=torch.float64)), expected)


def test_the_rule_is_the_servers_with_its_arguments_and_the_clients_in_their_order():
    rule = RuleInUse(settings("monna", "trusted = 4, f = 4", "arc = { f = 4 }"), HOSTILE)
    others = torch.from_numpy(np.random.default_rng(3).standard_normal((16, 9)))
    sent = others.mean(0) - 2
    by_client = dict(zip((c for c in range(20) if c not in HOSTILE), others.numpy(), strict=True))
    rows = [by_client.get(client, sent.numpy()) for client in range(20)]
    server = aggregate(build_aggregator("monna", "trusted = 4, f = 4", "arc = { f = 4 }"), rows, np.ones(20))
    np.testing.assert_array_equal(rule(others, sent).numpy(), server.value)
