"""Mimic, Min-Max and Min-Sum against plain loops and a numerical search."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from client_app.attacks import ATTACKS, FederationFacts, Mimic, MinMax, MinSum
from client_app.attacks.collusion import DIRECTIONS
from tasks.plugins import PluginError

FACTS = FederationFacts(num_clients=20, num_hostile=5, num_classes=10)


def honest(seed: int, m: int = 5, size: int = 30) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.standard_normal((m, size)) * draw.lognormal(0, 0.5, (m, 1)) + draw.standard_normal(size)


def farthest(sent: np.ndarray, updates: np.ndarray) -> float:
    return max(float(np.linalg.norm(sent - update)) for update in updates)


def summed(sent: np.ndarray, updates: np.ndarray) -> float:
    return sum(float(((sent - update) ** 2).sum()) for update in updates)


BOUNDS: list[tuple[type, Callable[..., float]]] = [(MinMax, farthest), (MinSum, summed)]


def perturbation(updates: np.ndarray, direction: str) -> np.ndarray:
    mean = updates.mean(0)
    return {"std": -updates.std(0), "unit": -mean / np.linalg.norm(mean), "sign": -np.sign(mean)}[direction]


@pytest.mark.parametrize(("attack", "measure"), BOUNDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_is_pushed_until_the_bound_and_no_further(
    attack: type, measure: Callable[..., float], direction: str, seed: int
):
    updates = honest(seed)
    bound = max(measure(update, updates) for update in updates)
    towards = perturbation(updates, direction)
    gamma = brentq(lambda g: measure(updates.mean(0) + g * towards, updates) - bound, 0, 1e3, xtol=1e-13)
    sent = attack(direction).agree(torch.from_numpy(updates), FACTS).numpy()
    np.testing.assert_allclose(sent, updates.mean(0) + gamma * towards, rtol=1e-9)
    assert measure(sent, updates) == pytest.approx(bound, rel=1e-9)


def test_min_sum_lies_as_far_from_the_mean_as_the_farthest_update():
    updates = honest(4)
    sent = MinSum().agree(torch.from_numpy(updates), FACTS).numpy()
    assert np.linalg.norm(sent - updates.mean(0)) == pytest.approx(farthest(updates.mean(0), updates), rel=1e-9)
    assert farthest(MinMax().agree(torch.from_numpy(updates), FACTS).numpy(), updates) > 0


@pytest.mark.parametrize("attack", [MinMax("unit"), MinSum("unit"), MinMax(), MinSum()])
def test_equal_updates_leave_no_room(attack: Any):
    updates = torch.ones(4, 6)
    assert torch.equal(attack.agree(updates, FACTS), torch.ones(6))
    assert torch.equal(attack.agree(torch.zeros(4, 6), FACTS), torch.zeros(6))


def test_single_precision_is_kept_and_is_near():
    updates = honest(0)
    for attack in (MinMax(), MinSum(), Mimic()):
        sent = attack.agree(torch.from_numpy(updates.astype(np.float32)), FACTS)
        assert sent.dtype == torch.float32
        np.testing.assert_allclose(sent.numpy(), attack.agree(torch.from_numpy(updates), FACTS).numpy(), atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_mimic_copies_who_reaches_furthest_in_the_direction_of_largest_variance(seed: int):
    updates = honest(seed)
    direction = np.linalg.svd(updates - updates.mean(0))[2][0]
    expected = updates[np.argmax(np.abs(updates @ direction))]
    np.testing.assert_array_equal(Mimic().agree(torch.from_numpy(updates), FACTS).numpy(), expected)


def test_mimic_does_not_take_the_longest_update():
    updates = np.array([[0.0, 9.0], [3.0, 9.0], [-4.0, 9.0], [0.1, 9.8]])  # they differ along the first axis
    assert Mimic().agree(torch.from_numpy(updates), FACTS).tolist() == [-4.0, 9.0]


@pytest.mark.parametrize("name", ["mimic", "min-max", "min-sum", "optimal-alie", "optimal-inner-product"])
def test_one_hostile_client_is_not_enough(name: str):
    attack = ATTACKS.build(name)
    assert "one hostile client" in attack.problem(replace(FACTS, num_hostile=1))
    assert attack.problem(FACTS) == ""


@pytest.mark.parametrize("name", ["min-max", "min-sum"])
def test_a_direction_that_does_not_exist_is_named(name: str):
    with pytest.raises(PluginError, match="direction = 'up': must be one of std, unit, sign"):
        ATTACKS.build(name, {"direction": "up"})
