"""DivideMix: an epoch against NumPy in float64, the division, the loss, the warm-up, and odd divisions."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import nn

from client_app.methods import METHODS, FitResult, RoundConfig, State
from client_app.methods.dividemix import HISTORY, DivideMix, SemiSupervised, endless, semi_supervised_loss, sharpened
from client_app.optimizers import make_optimizer
from tasks.base import ClientData
from tasks.seeds import rng, torch_seed
from tests.unit.client_app.methods.stepping import RATE, TASK, data, linear, normed, plain_context, softmax, vector

ROUND = 9


context = partial(plain_context, epochs=1, augment=False)


def fit(
    method: DivideMix, own: ClientData, networks: list[nn.Module], state: State | None = None, **options: Any
) -> FitResult:
    asked = RoundConfig(ROUND, RATE, (1, 0, ROUND), networks=networks[1:])
    return method.fit(networks[0], context(own, **options), asked, state or {})


def taught(seed: int) -> nn.Module:
    model, own = linear(seed), data(300, wrong=0.0)
    METHODS.build("sgd").fit(model, context(own, epochs=10), RoundConfig(1, RATE, (seed, 0, 1)), {})
    return model


@dataclass
class ByHand:
    """The re-derivation: both networks as matrices, float64, without views that differ."""

    own: ClientData
    networks: list[nn.Module]
    weights: list[np.ndarray] = field(default_factory=list)
    biases: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs = self.own.features.double().flatten(1).numpy() / 16
        for network in self.networks:
            weight, bias = (parameter.detach().double().numpy().copy() for parameter in network.parameters())
            self.weights.append(weight)
            self.biases.append(bias)

    def predict(self, place: int, inputs: np.ndarray) -> np.ndarray:
        return softmax(inputs @ self.weights[place].T + self.biases[place])

    def sure(self, place: int) -> np.ndarray:
        p = self.predict(place, self.inputs)[np.arange(len(self.own)), self.own.labels]
        losses = (-np.log(p) - (-np.log(p)).min()) / np.ptp(np.log(p))
        seed = torch_seed(1, "dividemix-fit", 0, ROUND) % 2**32
        mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed).fit(losses[:, None])
        return np.asarray(mixture.predict_proba(losses[:, None])[:, mixture.means_.argmin()])

    def epoch(self, method: DivideMix, sure: np.ndarray, place: int, fractions: float) -> None:
        draws = rng(1, "dividemix", 0, ROUND, 0, place)
        labelled, unlabelled = np.flatnonzero(sure > 0.5), np.flatnonzero(sure <= 0.5)
        assert min(len(labelled), len(unlabelled)) > 5
        order, queue = labelled[draws.permutation(len(labelled))], []
        parts = [order[i : i + 16] for i in range(0, len(order), 16)]
        for number, x in enumerate(parts):
            if not queue:
                mixed = unlabelled[draws.permutation(len(unlabelled))]
                queue = [mixed[i : i + 16] for i in range(0, len(mixed), 16)]
            u, w = queue.pop(0), sure[x][:, None]
            target_x = w * np.eye(10)[self.own.labels[x]] + (1 - w) * self.predict(place, self.inputs[x])
            target_u = (self.predict(0, self.inputs[u]) + self.predict(1, self.inputs[u])) / 2
            targets = np.concatenate([t**2 / (t**2).sum(1, keepdims=True) for t in (target_x,) * 2 + (target_u,) * 2])
            inputs = np.concatenate([self.inputs[x]] * 2 + [self.inputs[u]] * 2)
            share = draws.beta(4.0, 4.0)
            share, partners = max(share, 1 - share), draws.permutation(len(inputs))
            inputs, targets = (share * a + (1 - share) * a[partners] for a in (inputs, targets))
            weight = 25 * min((ROUND - 1 - method.warmup_rounds + number / len(parts)) / 16, 1.0)
            self.descend(place, inputs, targets, 2 * len(x), weight)
        assert fractions == len(parts)

    def descend(self, place: int, inputs: np.ndarray, targets: np.ndarray, labelled: int, weight: float) -> None:
        p = self.predict(place, inputs)
        by_p = np.tile(-0.1 / p.mean(0) / len(p), (len(p), 1))  # of KL(uniform, mean p)
        by_p[labelled:] += weight * 2 * (p - targets)[labelled:] / targets[labelled:].size
        slopes = p * (by_p - (p * by_p).sum(1, keepdims=True))
        slopes[:labelled] += (p - targets)[:labelled] / labelled
        self.weights[place] -= RATE * slopes.T @ inputs
        self.biases[place] -= RATE * slopes.sum(0)


def test_an_epoch_is_the_published_algorithm():
    own, networks, method = data(90, wrong=0.4), [taught(1), taught(2)], DivideMix(warmup_rounds=4)
    expected = ByHand(own, networks)
    sure = [expected.sure(0), expected.sure(1)]
    for place in (0, 1):
        expected.epoch(method, sure[1 - place], place, -(-int((sure[1 - place] > 0.5).sum()) // 16))
    fit(method, own, networks)
    for place, network in enumerate(networks):
        weight, bias = (parameter.detach().numpy() for parameter in network.parameters())
        np.testing.assert_allclose(weight, expected.weights[place], atol=5e-6)
        np.testing.assert_allclose(bias, expected.biases[place], atol=5e-6)


def test_most_labelled_examples_are_right():
    own, truth = data(200, wrong=0.4), TASK.train_examples().labels
    found = DivideMix()._posterior(taught(1), context(own), RoundConfig(ROUND, RATE, (1, 0, ROUND)), [])
    right = own.labels == truth[own.ids]
    assert right.mean() == 0.6
    assert right[found.numpy() > 0.5].mean() > 0.95
    assert right[found.numpy() <= 0.5].mean() < 0.2


def test_the_loss_is_the_published_one():
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 4, dtype=torch.float64, generator=draws).requires_grad_()
    targets = torch.softmax(torch.randn(10, 4, dtype=torch.float64, generator=draws), 1)
    p, t = softmax(logits.detach().numpy()), targets.numpy()
    supervised = -(t[:6] * np.log(p[:6])).sum(1).mean()
    penalty = (0.25 * np.log(0.25 / p.mean(0))).sum()
    expected = supervised + penalty + 3 * ((p[6:] - t[6:]) ** 2).mean()
    assert semi_supervised_loss(logits, targets, 6, 3.0).item() == pytest.approx(expected)
    alone = -(t * np.log(p)).sum(1).mean() + penalty
    assert semi_supervised_loss(logits, targets, 10, 3.0).item() == pytest.approx(alone)
    assert torch.autograd.gradcheck(lambda z: semi_supervised_loss(z, targets, 6, 3.0), (logits,))


def test_the_weight_rises_after_the_warm_up():
    method = DivideMix(warmup_rounds=4, ramp_rounds=2, unlabelled_weight=10.0)
    found = [method.weight(number, part) for number, part in ((5, 0.0), (5, 0.5), (6, 0.0), (7, 0.0), (9, 0.5))]
    assert found == pytest.approx([0, 2.5, 5, 10, 10])
    assert DivideMix(warmup_rounds=4, ramp_rounds=0).weight(5, 0.0) == 25


def test_a_warm_up_as_long_as_the_run_is_plain_training_of_both():
    own = data()
    networks, plain = [linear(1), linear(2)], [linear(1), linear(2)]
    fit(DivideMix(warmup_rounds=ROUND), own, networks)
    penalised = [linear(1), linear(2)]
    fit(DivideMix(warmup_rounds=ROUND, asymmetric=True), own, penalised)
    for trained, alone, other in zip(networks, plain, penalised, strict=True):
        METHODS.build("sgd").fit(alone, context(own), RoundConfig(ROUND, RATE, (1, 0, ROUND)), {})
        assert torch.equal(vector(trained), vector(alone))
        assert not torch.equal(vector(other), vector(alone))
    p = [torch.softmax(model(TASK.prepare(own.features)), 1) for model in (networks[0], penalised[0])]
    entropy = [-(one * one.log()).sum(1).mean() for one in p]
    assert entropy[1] > entropy[0]  # sum p log p is minimised


@pytest.mark.parametrize("posterior", [0.0, 1.0])
def test_where_all_or_none_are_labelled_it_trains_all_the_same(posterior: float, monkeypatch: pytest.MonkeyPatch):
    own, networks = data(17, wrong=0.0), [normed(), normed()]
    before = vector(networks[0])
    monkeypatch.setattr(DivideMix, "_posterior", lambda *_: torch.full((17,), posterior, dtype=torch.float64))
    result = fit(DivideMix(), own, networks, augment=True)
    assert np.isfinite(result.metrics["train-loss"])
    assert bool(vector(networks[0]).isfinite().all())
    assert not torch.equal(vector(networks[0]), before)


def test_the_other_network_only_looks_and_gradients_are_clipped():
    own, asked = data(60, wrong=0.4), RoundConfig(ROUND, RATE, (1, 0, ROUND))
    moved = []
    for clip_norm in (0.0, 1e-3):
        pair, work = (normed(), normed()), context(own, clip_norm=clip_norm)
        before = {name: tensor.clone() for name, tensor in pair[1].state_dict().items()}
        optimizer = make_optimizer(pair[0], work.trainer.options, RATE)
        SemiSupervised(DivideMix(), pair, optimizer, work, asked).run_epoch(torch.rand(60).double(), 0, 0)
        assert all(torch.equal(before[name], tensor) for name, tensor in pair[1].state_dict().items())
        moved.append((vector(pair[0]) - vector(normed())).norm().item())
    assert 0 < moved[1] < 4 * RATE * 1e-3 * 1.01 < moved[0]


def test_a_client_with_one_example_does_not_stop_it():
    networks = [normed(), normed()]
    result = fit(DivideMix(warmup_rounds=0), data(1), networks)
    assert np.isfinite(result.metrics["train-loss"])


def test_losses_of_earlier_epochs_are_averaged():
    own, model = data(60, wrong=0.4), taught(1)
    asked, work = RoundConfig(ROUND, RATE, (1, 0, ROUND)), context(own)
    now: list[np.ndarray] = []
    DivideMix()._posterior(model, work, asked, now)
    old = [np.random.default_rng(0).random(60), np.random.default_rng(1).random(60)]
    history = [array.copy() for array in old]
    averaged = DivideMix(average_losses=2)._posterior(model, work, asked, history)
    np.testing.assert_allclose(history[0], old[1])
    np.testing.assert_allclose(history[1], now[0])
    mean = (old[1] + now[0]) / 2
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(mean[:, None])
    expected = mixture.predict_proba(mean[:, None])[:, mixture.means_.argmin()]
    assert np.corrcoef(averaged.numpy(), expected)[0, 1] > 0.95

    networks = [taught(1), taught(2)]
    state = fit(DivideMix(average_losses=3, warmup_rounds=0), own, networks, epochs=2).state
    assert [state[name].shape for name in HISTORY] == [(2, 60)] * 2
    again = fit(DivideMix(average_losses=3, warmup_rounds=0), own, networks, state, epochs=2).state
    np.testing.assert_array_equal(again[HISTORY[0]][0], state[HISTORY[0]][1])
    assert fit(DivideMix(warmup_rounds=0), own, networks).state == {}
    assert fit(DivideMix(average_losses=2, warmup_rounds=0), own, networks).state.keys() == {*HISTORY}


def test_sharpening_and_batches_without_end():
    p = torch.tensor([[0.5, 0.3, 0.2]])
    assert torch.allclose(sharpened(p, 1.0), p)
    assert sharpened(p, 0.5)[0].tolist() == pytest.approx([0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38])
    batches = endless(torch.tensor([3, 5, 7]), 2, np.random.default_rng(0))
    drawn = torch.cat([next(batches) for _ in range(4)]).tolist()
    assert sorted(drawn[:3]) == sorted(drawn[3:]) == [3, 5, 7]
