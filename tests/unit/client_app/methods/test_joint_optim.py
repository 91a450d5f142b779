"""Joint Optim: its step against NumPy, labels that follow the history, limit cases, and losses it cannot work with."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from client_app.methods import METHODS, State
from client_app.methods.joint_optim import HISTORY, SOFT_LABELS, JointOptim, from_uniform
from client_app.methods.sgd import LocalSGD
from tasks.issues import RunContext
from tasks.settings import LossSettings, Settings
from tests.unit.client_app.methods.stepping import (
    Array,
    data,
    inputs_of,
    linear,
    one_step,
    play,
    probabilities,
    start,
    stepped,
    trained,
)

DRAWS = np.random.default_rng(0)


def history_of(filled: int, count: int = 20, length: int = 10) -> State:
    values = np.zeros((count, length, 10), np.float32)
    values[:, :filled] = DRAWS.dirichlet(np.ones(10), (count, filled))
    return {HISTORY: values, f"{HISTORY}-seen": np.full(count, filled)}


@pytest.mark.parametrize("filled", [0, 4, 10])
def test_a_step_is_the_published_one(filled: int) -> None:
    own, state = data(count=20), history_of(filled)
    inputs = inputs_of(own)
    labels = state[HISTORY][:, :filled].mean(1) if filled else np.eye(10)[own.labels]

    def loss(parameters: Array) -> float:
        p = probabilities(parameters, inputs)
        divergence = (labels * (np.log(np.maximum(labels, 1e-300)) - np.log(p))).sum(1).mean()
        prior = (0.1 * np.log(0.1 / p.mean(0))).sum()
        entropy = -(p * np.log(p)).sum(1).mean()
        return float(divergence + 1.2 * prior + 0.8 * entropy)

    found, result = one_step(JointOptim(warmup_rounds=3), own, state, server_round=4)
    np.testing.assert_allclose(found, stepped(loss), rtol=0, atol=2e-6)
    answers = probabilities(start(), inputs)
    expected = np.concatenate([state[HISTORY][:, :filled], answers[:, None]], 1)[:, -10:].mean(1)
    np.testing.assert_allclose(result.state[SOFT_LABELS], expected, atol=1e-6)
    np.testing.assert_allclose(JointOptim().corrected(result.state), expected, atol=1e-6)  # type: ignore[arg-type]


def test_both_regularizers_act_in_the_warm_up_too() -> None:
    own = data(count=20)
    inputs, rows = inputs_of(own), np.arange(20)

    def loss(parameters: Array) -> float:
        p = probabilities(parameters, inputs)
        own_part = -np.log(p[rows, own.labels]).mean()
        return float(own_part - 1.2 * np.log(p.mean(0)).mean() - 0.8 * (p * np.log(p)).sum(1).mean())

    found, result = one_step(JointOptim(), own)
    np.testing.assert_allclose(found, stepped(loss), rtol=0, atol=2e-6)
    assert SOFT_LABELS not in result.state
    assert JointOptim().corrected(result.state) is None


def test_weights_zero_within_the_warm_up_is_plain_training() -> None:
    own = data()
    method = JointOptim(alpha=0.0, beta=0.0)
    assert torch.equal(trained(method, own), trained(LocalSGD(), own))
    boundary = [trained(replace(method, warmup_rounds=3), own, server_round=number) for number in (3, 4)]
    assert [torch.equal(weights, trained(LocalSGD(), own)) for weights in boundary] == [True, False]
    assert not torch.equal(trained(replace(method, alpha=1.2), own), trained(LocalSGD(), own))
    assert not torch.equal(trained(replace(method, beta=0.8), own), trained(LocalSGD(), own))


def test_an_unseen_example_keeps_its_given_label_and_hurts_no_other() -> None:
    """The last batch is not full and left out in the first epoch, so that some examples have no prediction."""
    own = data(count=20)
    result = play(JointOptim(warmup_rounds=0), linear(), own, epochs=1, batch_size=16, drop_last=True)
    unseen = result.state[f"{HISTORY}-seen"] == 0
    assert unseen.sum() == 4
    labels = result.state[SOFT_LABELS]
    np.testing.assert_array_equal(labels[unseen], np.eye(10)[own.labels][unseen])
    np.testing.assert_allclose(labels[~unseen], result.state[HISTORY][~unseen, 0])


def test_labels_are_renewed_after_each_local_epoch() -> None:
    own = data(count=20)
    result = play(JointOptim(warmup_rounds=0), linear(), own, epochs=3, batch_size=20)
    np.testing.assert_allclose(result.state[SOFT_LABELS], result.state[HISTORY][:, :3].mean(1), atol=1e-6)
    again = play(JointOptim(warmup_rounds=0), linear(), own, result.state, epochs=1, batch_size=20)
    np.testing.assert_allclose(again.state[SOFT_LABELS], again.state[HISTORY][:, :4].mean(1), atol=1e-6)


def test_the_distance_from_the_uniform_prediction() -> None:
    """KL by its definition; 0 where it is uniform; finite where a class is never predicted."""
    mean = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    expected = sum(math.log(1 / 3 / share) / 3 for share in mean.tolist())
    assert from_uniform(mean).item() == pytest.approx(expected, rel=1e-12)
    assert from_uniform(torch.full((10,), 0.1, dtype=torch.float64)).item() == pytest.approx(0, abs=1e-12)
    assert math.isfinite(from_uniform(torch.tensor([1.0, 0.0])).item())


def context(loss: str, rounds: int = 100) -> RunContext:
    return RunContext(Settings(num_server_rounds=rounds, loss=LossSettings(loss)), sampled=6)


@pytest.mark.parametrize(("loss", "fits"), [("ce", True), ("nce+rce", True), ("la-ce", True), ("gce", False)])
def test_a_loss_without_a_value_for_soft_labels_is_an_error_before_the_start(loss: str, fits: bool) -> None:
    found = [issue.line for issue in JointOptim().issues(context(loss))]
    text = "method joint-optim learns soft labels, and the loss gce takes one class each: set loss.name = 'ce'"
    assert found == ([] if fits else [text])


@pytest.mark.parametrize("name", ["joint-optim", "selfie"])
def test_a_run_that_ends_in_the_warm_up_is_said(name: str) -> None:
    method = METHODS.build(name)
    (issue,) = method.issues(context("ce", 24))
    assert issue.level == "warning"
    assert "first 24 rounds (warmup_rounds), and the run has 24: it does what sgd does" in issue.line
    assert "set method.args = 'warmup_rounds = 4'" in issue.line
    assert method.issues(context("ce", 25)) == []
