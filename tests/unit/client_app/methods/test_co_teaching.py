"""Co-teaching and Co-teaching+: a round against NumPy in float64, limit cases, what is chosen, and odd batches."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client_app.losses import Loss, Objective, build
from client_app.methods import METHODS, RoundConfig
from client_app.methods.co_teaching import CoTeaching, CoTeachingPlus, DisagreementExchange, SmallLossExchange, smallest
from client_app.methods.side_by_side import steps_in_a_round
from client_app.trainer import Batch, Trainer, say_that_it_is_eager, to_device
from tasks.base import ClientData
from tasks.seeds import torch_seed
from tasks.settings import TrainSettings
from tests.unit.client_app.methods.stepping import CPU, RATE, TASK, data, linear, normed, softmax, vector
from tests.unit.client_app.methods.stepping import plain_context as context


def fit(method: CoTeaching, own: ClientData, networks: list[nn.Module], server_round: int, **options: Any) -> float:
    asked = RoundConfig(server_round, RATE, (1, 0, server_round), networks=networks[1:])
    return method.fit(networks[0], context(own, **options), asked, {}).metrics["train-loss"]


@dataclass
class ByHand:
    """One network of the re-derivation."""

    weight: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, network: nn.Module) -> "ByHand":
        weight, bias = (parameter.detach().double().numpy().copy() for parameter in network.parameters())
        return cls(weight, bias)

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        return softmax(inputs @ self.weight.T + self.bias)

    def descend(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        slopes = (self.probabilities(inputs) - np.eye(10)[labels]) / len(labels)
        self.weight -= RATE * slopes.T @ inputs
        self.bias -= RATE * slopes.sum(0)


def by_hand(own: ClientData, networks: list[nn.Module], forget: float, server_round: int, plus: bool) -> list[ByHand]:
    pair = [ByHand.of(network) for network in networks]
    inputs, options = own.features.double().flatten(1).numpy() / 16, TrainSettings(epochs=2, batch_size=16)
    stream = torch_seed(1, "train", 0, server_round)
    for epoch in Trainer(TASK, options, CPU).epochs(linear(0), to_device(own, CPU), stream):
        for batch in epoch:
            rows = batch.indices.numpy()
            p = [one.probabilities(inputs[rows]) for one in pair]
            pool = np.flatnonzero(p[0].argmax(1) != p[1].argmax(1)) if plus else np.arange(len(rows))
            chosen = []
            for own_p in p:
                losses = -np.log(own_p[pool, own.labels[rows[pool]]])
                chosen.append(rows[pool[np.argsort(losses)[: int((1 - forget) * len(pool)) or len(pool)]]])
            if not len(pool):
                chosen = [rows, rows]
            pair[0].descend(inputs[chosen[1]], own.labels[chosen[1]])
            pair[1].descend(inputs[chosen[0]], own.labels[chosen[0]])
    return pair


@pytest.mark.parametrize("plus", [False, True])
def test_a_round_is_the_published_algorithm(plus: bool):
    own, networks, forget = data(), [linear(1), linear(2)], 0.4
    kind = CoTeachingPlus(forget, 4, agreement_rounds=2) if plus else CoTeaching(forget, 4)
    expected = by_hand(own, networks, 0.3, 4, plus)  # after 3 of 4 rounds of the ramp
    fit(kind, own, networks, 4)
    for network, one in zip(networks, expected, strict=True):
        weight, bias = (parameter.detach().numpy() for parameter in network.parameters())
        np.testing.assert_allclose(weight, one.weight, atol=2e-6)
        np.testing.assert_allclose(bias, one.bias, atol=2e-6)


def test_the_rate_rises_to_its_end():
    assert [CoTeaching(0.2, 4).rate(number) for number in (1, 2, 5, 9)] == pytest.approx([0, 0.05, 0.2, 0.2])
    assert CoTeaching(0.2, 0).rate(1) == 0.2


@pytest.mark.parametrize("loss", ["ce", "anl-ce"])
def test_without_forgetting_either_network_is_trained_plainly(loss: str):
    own = data()
    networks, plain = [normed(), linear(2)], [normed(), linear(2)]
    mean = fit(CoTeaching(0.0), own, networks, 3, loss=loss, momentum=0.9, clip_norm=1.0)
    means = []
    for alone, trained in zip(plain, networks, strict=True):
        asked = RoundConfig(3, RATE, (1, 0, 3))
        result = METHODS.build("sgd").fit(alone, context(own, loss, momentum=0.9, clip_norm=1.0), asked, {})
        means.append(result.metrics["train-loss"])
        torch.testing.assert_close(vector(trained), vector(alone), rtol=1e-6, atol=1e-7)
    assert mean == pytest.approx(means[0], rel=1e-5)
    assert means[1] != pytest.approx(means[0], rel=1e-3)


def test_networks_that_are_alike_agree_and_learn_whole_batches_until_the_fallback_ends():
    own = data()
    steps = steps_in_a_round(linear(1), context(own))
    assert steps == 2 * 3  # 41 examples in batches of 16, twice
    plain = linear(1)
    METHODS.build("sgd").fit(plain, context(own), RoundConfig(3, RATE, (1, 0, 3)), {})
    for fallback, expected in ((3 * steps, vector(plain)), (2 * steps, vector(linear(1)))):
        networks = [linear(1), linear(1)]
        loss = fit(CoTeachingPlus(agreement_rounds=0, fallback_steps=fallback), own, networks, 3)
        assert torch.equal(vector(networks[0]), expected)
        assert torch.equal(vector(networks[1]), expected)
        assert (loss == 0) == (fallback == 2 * steps)  # left out: nothing was learned, and nothing is NaN


def test_one_example_in_disagreement_is_learned():
    networks = [linear(1), linear(2)]
    logits = [torch.eye(10)[[1, 2, 3]], torch.eye(10)[[1, 2, 4]]]
    batch = Batch(torch.arange(3), torch.zeros(3, 8, 8), torch.tensor([1, 2, 3]))
    chosen = DisagreementExchange(build("ce", 10), networks, 0.9, 0).chosen(batch, logits)
    assert chosen is not None
    assert [mask.tolist() for mask in chosen] == [[False, False, True]] * 2


def test_a_share_of_a_few_disagreements_that_is_none_is_all_of_them():
    logits = [torch.eye(10)[[1, 2, 3, 4]], torch.eye(10)[[1, 5, 6, 4]]]
    batch = Batch(torch.arange(4), torch.zeros(4, 8, 8), torch.tensor([1, 2, 3, 4]))
    chosen = DisagreementExchange(build("ce", 10), [linear(1), linear(2)], 0.9, 0).chosen(batch, logits)
    assert chosen is not None
    assert [mask.tolist() for mask in chosen] == [[False, True, True, False]] * 2


def test_the_plus_begins_after_the_agreement_rounds():
    own, networks = data(), [linear(1), linear(2)]
    for server_round, kind in ((2, SmallLossExchange), (3, DisagreementExchange)):
        asked = RoundConfig(server_round, RATE, (1, 0, server_round))
        assert type(CoTeachingPlus(agreement_rounds=2)._loss(networks, context(own), asked)) is kind


class Scaled(Loss):
    """Cross-entropy times a number that it learns."""

    parameter_rate = 0.01

    def __init__(self) -> None:
        self.scale = nn.Parameter(torch.ones(1))

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return {"scale": self.scale}

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.scale * nn.functional.cross_entropy(logits, target, reduction="none")


def test_what_a_loss_learns_itself_is_learned_here_too():
    loss = Scaled()
    work = replace(context(data()), objective=Objective(loss))
    CoTeaching().fit(linear(1), work, RoundConfig(1, RATE, (1, 0, 1), networks=[linear(2)]), {})
    assert loss.scale.item() < 1


def test_each_network_learns_from_what_the_other_has_chosen():
    networks = [linear(1), linear(2)]
    labels = torch.tensor([0, 0, 0, 0])
    sure_of_the_first, sure_of_the_last = torch.zeros(4, 10), torch.zeros(4, 10)
    sure_of_the_first[:2, 0], sure_of_the_last[2:, 0] = 5.0, 5.0
    batch = Batch(torch.arange(4), torch.zeros(4, 8, 8), labels)
    exchange = SmallLossExchange(build("ce", 10), networks, 0.5)
    values = exchange.losses(networks, batch, torch.zeros(4), [sure_of_the_first, sure_of_the_last])
    assert values is not None
    assert [value.item() for value in values] == pytest.approx([np.log(10)] * 2)  # where it is not sure itself


def test_wrong_labels_are_left_out():
    own, truth = data(200, wrong=0.3), TASK.train_examples().labels
    networks = [linear(1), linear(2)]
    fit(CoTeaching(0.3, 0), own, networks, 1, epochs=10, momentum=0.9)
    batch = Batch(torch.arange(200), own.features, torch.from_numpy(own.labels))
    logits = [network(TASK.prepare(own.features)) for network in networks]
    chosen = SmallLossExchange(build("ce", 10), networks, 0.3).chosen(batch, logits)
    assert chosen is not None
    right = own.labels == truth[own.ids]
    assert right.mean() == 0.7
    assert min(right[mask.numpy()].mean() for mask in chosen) > 0.85


@pytest.mark.parametrize(("count", "forget", "expected"), [(10, 0.2, 8), (10, 0.3, 7), (1, 0.2, 1), (3, 0.9, 1)])
def test_how_many_are_chosen(count: int, forget: float, expected: int):
    losses = torch.arange(count, 0, -1).float()
    assert smallest(losses, forget, 1).tolist() == [False] * (count - expected) + [True] * expected
    assert smallest(torch.ones(3), 0.9, 3).all()


def test_a_client_with_one_example_does_not_stop_it():
    own, networks = data(1), [normed(), normed()]
    fit(CoTeaching(0.2, 0), own, networks, 1)
    assert bool(vector(networks[0]).isfinite().all())
    model = linear(1)
    expected = -np.log(ByHand.of(model).probabilities(own.features.double().flatten(1).numpy() / 16)[0, own.labels[0]])
    assert fit(CoTeaching(0.2, 0), own, [model, linear(2)], 1, epochs=1) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("engine", ["eager", "compile"])
def test_an_engine_that_is_not_used_is_said(engine: str, caplog: pytest.LogCaptureFixture):
    say_that_it_is_eager.cache_clear()
    with caplog.at_level(logging.WARNING):
        fit(CoTeaching(), data(8), [linear(1), linear(2)], 1, engine=engine, epochs=1)
    assert ("SmallLossExchange" in caplog.text) == (engine == "compile")
