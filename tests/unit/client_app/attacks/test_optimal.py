"""ALIE and inner-product manipulation with a searched factor: the search, what stands for honest updates, the rule."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client_app.attacks import ATTACKS, AttackContext, FederationFacts, LocalUpdate, OptimalAlie, OptimalInnerProduct
from client_app.attacks.optimal import most_harmful, stand_ins
from server_app.attack_rule import RuleInUse
from server_app.validation.config import check
from tasks.base import ClientData
from tasks.config import DEFAULTS, ConfigError
from tasks.plugins import PluginError
from tasks.settings import FederationSettings, Settings, StrategySettings

FACTS = FederationFacts(num_clients=20, num_hostile=4, num_classes=10)
HOSTILE = frozenset({3, 7, 11, 19})
UPDATES = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 60)) + 0.5).float()


def settings(aggregator: str = "mean", args: str = "", before: str = "", fraction: float = 1.0) -> Settings:
    strategy = StrategySettings(aggregator=aggregator, aggregator_args=args, pre_aggregators=before)
    return Settings(federation=FederationSettings(num_clients=20, fraction_train=fraction), strategy=strategy)


def context(rule: RuleInUse) -> AttackContext:
    data = ClientData(7, torch.zeros(1), np.zeros(1, np.int64), np.arange(1), 10)
    pool = {client: LocalUpdate(update, {}, {}) for client, update in zip(sorted(HOSTILE), UPDATES, strict=True)}

    def no_training(examples: ClientData, effort: int) -> LocalUpdate:
        raise AssertionError("it needs nothing but the honest updates")

    draws = np.random.default_rng(1)
    return AttackContext(
        data, FACTS, draws, no_training, lambda: pool, shared_draws=np.random.default_rng(2), rule=rule
    )


def harm_of(sent: Tensor, rule: RuleInUse) -> float:
    others = stand_ins(UPDATES, rule.num_honest, np.random.default_rng(2))
    return float(torch.linalg.vector_norm(rule(others, sent) - others.mean(0)))


@pytest.mark.parametrize(
    ("aggregator", "args", "before"),
    [
        ("mean", "", ""),
        ("median", "", ""),
        ("trimmed-mean", "f = 4", ""),
        ("krum", "f = 4", ""),
        ("multi-krum", "f = 4", "nnm = { f = 4 }"),
        ("geometric-median", "", "arc = { f = 4 }"),
        ("caf", "f = 4", ""),
    ],
)
@pytest.mark.parametrize("attack", [OptimalAlie(), OptimalInnerProduct()])
def test_no_factor_of_a_fine_grid_does_much_more_harm(attack: Any, aggregator: str, args: str, before: str):
    rule = RuleInUse(settings(aggregator, args, before), HOSTILE)
    found = harm_of(attack.act(context(rule)).update, rule)
    finer = max(harm_of(attack.candidate(UPDATES, factor), rule) for factor in np.linspace(0.05, attack.largest, 150))
    assert found >= 0.95 * finer


def test_against_the_mean_the_largest_factor_is_sent_and_krum_wants_a_smaller_one():
    mean, krum = (RuleInUse(settings(*chosen), HOSTILE) for chosen in (("mean",), ("krum", "f = 4")))
    assert torch.equal(OptimalAlie().act(context(mean)).update, OptimalAlie().candidate(UPDATES, 10.0))
    sent = OptimalAlie().act(context(krum)).update
    factor = float(((UPDATES.mean(0) - sent) / UPDATES.std(0, correction=0)).mean())
    assert 0 < factor < 5


@pytest.mark.parametrize("place", [0.04, 0.7, 2.4, 6.1, 9.999])
@pytest.mark.parametrize("cliff", [True, False])
def test_the_search_finds_a_peak_and_the_edge_of_a_cliff(place: float, cliff: bool):
    asked: list[float] = []

    def harm(factor: float) -> float:
        return (factor if factor <= place else 0.0) if cliff else -abs(np.log(factor / place))

    def counted(factor: float) -> float:
        asked.append(factor)
        return harm(factor)

    found = most_harmful(counted, 10.0, 24)
    assert found == pytest.approx(place, rel=0.02)
    assert found == max(asked, key=harm)
    assert len(asked) == 24
    assert all(0 < factor <= 10 for factor in asked)


def test_stand_ins_are_the_known_updates_and_draws_with_their_mean_and_covariance():
    many = stand_ins(UPDATES.double()[:, :3], 40_000, np.random.default_rng(0)).numpy()
    known = UPDATES.double()[:, :3].numpy()
    np.testing.assert_array_equal(many[:4], known)
    np.testing.assert_allclose(many[4:].mean(0), known.mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(many[4:].T), np.cov(known.T), atol=0.05)
    assert stand_ins(UPDATES, 3, np.random.default_rng(0)).tolist() == UPDATES[:3].tolist()


ATTACKED = {"attack.name": "optimal-alie", "attack.share": 0.2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy.name": "flwr.serverapp.strategy:FedAvg"}, "FedAvg has none: choose an attack with a fixed factor"),
        ({"attack.share": 1.0}, "all clients are hostile: there is no honest update to hide among"),
        ({"attack.share": 0.05}, "one hostile client does not see how honest updates differ"),
        ({"federation.fraction-train": 0.05, "federation.min-replies": 1}, "one client trains in a round"),
        ({"attack.args": "evaluations = 3"}, "evaluations = 3: must be at least 4"),
        ({"attack.args": "largest = 0.0"}, "largest = 0.0: must be above 0"),
    ],
)
def test_what_makes_the_search_impossible_is_said_before_the_run(changes: dict[str, object], message: str):
    with pytest.raises((ConfigError, PluginError)) as caught:
        check({**DEFAULTS, **ATTACKED, **changes})  # type: ignore[dict-item]
    assert message in str(caught.value)


def test_an_attack_that_fits_passes_the_check():
    assert check({**DEFAULTS, **ATTACKED}).attack.name == "optimal-alie"  # type: ignore[dict-item]
    facts = replace(FACTS, num_hostile=20)
    assert "all clients are hostile" in ATTACKS.build("optimal-inner-product").problem(facts)
