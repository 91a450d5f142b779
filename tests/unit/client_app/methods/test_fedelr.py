"""FedELR: its step against NumPy, targets as moving averages that last, limit cases, and what it is for."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from client_app.methods.fedelr import TARGETS, FedELR
from client_app.methods.sgd import LocalSGD
from tests.unit.client_app.methods.stepping import (
    TASK,
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

OLD = np.random.default_rng(0).dirichlet(np.ones(10), 20).astype(np.float32)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_step_is_the_published_one(share: float) -> None:
    own = data(count=20)
    inputs = inputs_of(own)
    before = probabilities(start(), inputs)  # the received model is where training starts
    expected_targets = 0.7 * OLD + 0.3 * ((1 - share) * before + share * before)

    def loss(parameters: Array) -> float:
        p = probabilities(parameters, inputs)
        own_part = -np.log(p[np.arange(20), own.labels]).mean()
        return float(own_part + 3.0 * np.log(1 - (expected_targets * p).sum(1)).mean())

    found, result = one_step(FedELR(global_share=share), own, {TARGETS: OLD})
    np.testing.assert_allclose(found, stepped(loss), rtol=0, atol=2e-6)
    np.testing.assert_allclose(result.state[TARGETS], expected_targets, atol=1e-6)


def test_targets_start_at_zero_and_go_on_where_they_were() -> None:
    own = data(count=20)
    _, first = one_step(FedELR(), own)
    np.testing.assert_allclose(first.state[TARGETS], 0.3 * probabilities(start(), inputs_of(own)), atol=1e-6)
    _, second = one_step(FedELR(), own, first.state)
    np.testing.assert_allclose(second.state[TARGETS], 1.7 * first.state[TARGETS], atol=1e-6)


def test_the_received_model_takes_part_in_the_targets_to_its_share() -> None:
    """From the second epoch on the trained model says something else than the received one."""
    own, model = data(count=20), linear()
    received = probabilities(start(), inputs_of(own))
    result = play(FedELR(global_share=1.0, momentum=0.5), model, own, epochs=3, batch_size=20)
    np.testing.assert_allclose(result.state[TARGETS], (0.5 + 0.25 + 0.125) * received, atol=1e-6)


def test_weight_zero_is_plain_local_training() -> None:
    own = data()
    assert torch.equal(trained(FedELR(weight=0.0), own), trained(LocalSGD(), own))
    assert not torch.equal(trained(FedELR(), own), trained(LocalSGD(), own))


def test_state_survives_a_round_without_the_term() -> None:
    assert play(FedELR(weight=0.0), linear(), data(count=20), {TARGETS: OLD}).state == {TARGETS: OLD}


def test_targets_that_do_not_fit_are_dropped_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    own = data(count=20)
    with caplog.at_level(logging.WARNING):
        _, result = one_step(FedELR(), own, {TARGETS: OLD[:7]})
    assert (
        "Client 0 starts without targets in round 1: they are (7, 10) and do not fit the data, (20, 10)" in caplog.text
    )
    assert result.state[TARGETS].shape == (20, 10)


def test_it_learns_fewer_wrong_labels_by_heart() -> None:
    """40 examples, 12 labels wrong, trained until plain training knows all of them."""
    own, right = data(count=40, wrong=0.3), data(count=40, wrong=0.0)
    wrong = own.labels != right.labels
    knows = {}
    for name, method in (("sgd", LocalSGD()), ("fedelr", FedELR())):
        model = linear()
        play(method, model, own, epochs=60, batch_size=20)
        with torch.no_grad():
            predicted = model(TASK.prepare(own.features)).argmax(1).numpy()
        knows[name] = (predicted == own.labels)[wrong].mean(), (predicted == right.labels).mean()
    assert knows["sgd"][0] > 0.9
    assert knows["fedelr"][0] < 0.5
    assert knows["fedelr"][1] > knows["sgd"][1] + 0.1


def sure() -> nn.Module:
    """Return a network whose predictions are 0 and 1 in float32."""
    model = linear()
    with torch.no_grad():
        model[1].weight.mul_(1e4)  # type: ignore[union-attr, operator, index]
    return model


def test_sure_predictions_stay_finite() -> None:
    """Without clipping, a target that is the prediction itself would make the logarithm of 0."""
    own, model = data(count=20), sure()
    result = play(FedELR(momentum=0.0), model, own, epochs=5)
    assert np.isfinite(result.metrics["train-loss"])
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_what_enters_the_targets_is_a_distribution_also_where_it_is_clipped() -> None:
    result = play(FedELR(), sure(), data(count=20), epochs=1, batch_size=20)
    np.testing.assert_allclose(result.state[TARGETS].sum(1), 0.3, rtol=1e-6)
