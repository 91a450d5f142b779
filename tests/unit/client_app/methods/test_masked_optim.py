"""MaskedOptim and FedELC: one round against NumPy, limit cases, states and odd data."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from client_app.losses import build
from client_app.methods import METHODS, FitResult, RoundConfig, State, TrainContext
from client_app.methods.masked_optim import FedELC, MaskedOptim, merge_weights
from client_app.trainer import Trainer, to_device
from tasks.base import ClientData
from tasks.seeds import torch_seed
from tasks.settings import TrainSettings
from tests.odd_models import Tied
from tests.unit.client_app.methods.stepping import CPU, RATE, TASK, data, linear, normed, softmax, vector


def kit_of(own: ClientData, options: TrainSettings) -> TrainContext:
    loss = build("la-ce", own.num_classes, class_counts=own.class_counts())
    return TrainContext(Trainer(TASK, options, CPU), loss, to_device(own, CPU), own.num_classes)


def fit(
    method: MaskedOptim,
    model: nn.Module,
    own: ClientData,
    state: State | None = None,
    role: str = "noisy",
    learned: bool = False,
    **options: object,
) -> FitResult:
    settings = TrainSettings(**{"epochs": 2, "batch_size": 16, **options})  # type: ignore[arg-type]
    round_config = RoundConfig(1, RATE, (1, 0, 1), role, {"learned-labels": learned})
    return method.fit(model, kit_of(own, settings), round_config, state or {})


def by_hand(method: MaskedOptim, own: ClientData, options: TrainSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One noisy round of a linear model in float64: sent weight and bias, and the label logits kept."""
    layer = linear()[1]
    weight0, bias0 = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()  # type: ignore[union-attr, operator]
    weight, bias = weight0.copy(), bias0.copy()
    inputs = own.features.double().flatten(1).numpy() / 16
    truth, learned, k = np.eye(10)[own.labels], method.label_scale * np.eye(10)[own.labels], 10
    trainer = Trainer(TASK, options, CPU)
    for epoch in trainer.epochs(linear(), to_device(own, CPU), torch_seed(1, "train", 0, 1)):
        slopes = np.zeros_like(learned)
        for batch in epoch:
            rows = batch.indices.numpy()
            p, d, y = softmax(inputs[rows] @ weight.T + bias), softmax(learned[rows]), truth[rows]
            mask = np.zeros((len(rows), 1))
            mask[np.argsort(-np.log((p * y).sum(1)))[: int(method.keep * len(rows))]] = 1
            slopes[rows] = (d - p) / k + method.alpha * mask * (d - y)
            surprise = -np.log(d) + (1 - method.beta) * np.log(p)  # derivative of the loss by p, up to a constant
            by_logits = p * (surprise - (p * surprise).sum(1, keepdims=True)) / k / len(rows)
            weight -= RATE * by_logits.T @ inputs[rows]
            bias -= RATE * by_logits.sum(0)
        learned -= method.label_rate * slopes
    merged = (softmax(learned) + softmax(inputs @ weight.T + bias)) / 2
    z = method.zeta
    return z * weight + (1 - z) * weight0, z * bias + (1 - z) * bias0, method.label_scale * merged


@pytest.mark.parametrize("batch_size", [16, 64])
def test_a_round_is_the_published_algorithm(batch_size: int):
    own, method, model = data(), MaskedOptim(), linear()
    options = TrainSettings(epochs=3, batch_size=batch_size, momentum=0.0, clip_norm=0.0)
    weight, bias, labels = by_hand(method, own, options)
    result = method.fit(model, kit_of(own, options), RoundConfig(1, RATE, (1, 0, 1), "noisy"), {})
    sent = list(model.parameters())
    np.testing.assert_allclose(sent[0].detach().numpy(), weight, atol=2e-6)
    np.testing.assert_allclose(sent[1].detach().numpy(), bias, atol=2e-6)
    assert result.state["label_logits"].dtype == np.float32
    np.testing.assert_allclose(result.state["label_logits"], labels, atol=2e-4)


@pytest.mark.parametrize("role", ["clean", "unknown"])
def test_other_roles_train_on_the_configured_loss_and_keep_what_was_learned(role: str):
    own, kept = data(), {"label_logits": np.ones((41, 10), np.float32)}
    plain, model = linear(), linear()
    settings = TrainSettings(epochs=2, batch_size=16)
    METHODS.build("sgd").fit(plain, kit_of(own, settings), RoundConfig(1, RATE, (1, 0, 1), role), {})
    result = fit(MaskedOptim(), model, own, kept, role)
    assert torch.equal(vector(model), vector(plain))
    assert result.state is kept
    assert fit(MaskedOptim(), linear(), own, None, role).state == {}


def test_zeta_goes_from_the_received_to_the_trained_weights():
    own, start = data(), vector(linear())
    sent = {}
    for zeta in (0.0, 0.8, 1.0):
        model = linear()
        fit(MaskedOptim(zeta=zeta), model, own)
        sent[zeta] = vector(model)
    assert torch.equal(sent[0.0], start)
    torch.testing.assert_close(sent[0.8], 0.2 * start + 0.8 * sent[1.0])
    assert not torch.equal(sent[1.0], start)


def test_batch_statistics_are_merged_and_counters_are_not():
    own, model, received = data(), normed(), normed().state_dict()
    fit(MaskedOptim(zeta=1.0), model, own)
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merge_weights(model, received, 0.8)
    for name in ("2.running_mean", "2.running_var", "1.weight"):
        torch.testing.assert_close(model.state_dict()[name], 0.2 * received[name] + 0.8 * trained[name])
        assert not torch.equal(trained[name], received[name])
    assert model.state_dict()["2.num_batches_tracked"] == trained["2.num_batches_tracked"] == 6


def test_a_tied_weight_is_merged_once():
    model = Tied()
    received = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.embed.weight += 1
    merge_weights(model, received, 0.8)
    torch.testing.assert_close(model.embed.weight.detach(), received["embed.weight"] + 0.8)


def test_the_networks_scale_is_a_longer_step_without_momentum():
    """Of a linear model, on labels that stay: the gradient times ten is the learning rate times ten."""
    method = MaskedOptim(label_rate=0.0, zeta=1.0, network_scale=10.0)
    own, model = data(), linear()
    fit(method, model, own, epochs=1, momentum=0.0, weight_decay=0.0, clip_norm=0.0)
    again = linear()
    settings = TrainSettings(epochs=1, batch_size=16, momentum=0.0, weight_decay=0.0, clip_norm=0.0)
    MaskedOptim(label_rate=0.0, zeta=1.0).fit(
        again, kit_of(own, settings), RoundConfig(1, 10 * RATE, (1, 0, 1), "noisy", {"learned-labels": False}), {}
    )
    torch.testing.assert_close(vector(model), vector(again))
    assert not torch.allclose(vector(model), vector(linear()))


def test_labels_are_fused_with_what_the_trained_network_says_when_it_only_looks():
    own, model = data(), normed()
    result = fit(MaskedOptim(fusion=1.0, zeta=1.0), model, own)
    with torch.no_grad():
        expected = torch.softmax(model.eval()(TASK.prepare(own.features)), 1)
    torch.testing.assert_close(torch.from_numpy(result.state["label_logits"]), 10 * expected)


def test_without_label_rate_and_fusion_labels_stay_as_given():
    own = data()
    result = fit(MaskedOptim(label_rate=0.0, fusion=0.0), linear(), own)
    given = torch.softmax(10 * torch.eye(10)[torch.from_numpy(own.labels)], 1)
    torch.testing.assert_close(torch.from_numpy(result.state["label_logits"]), 10 * given)


def test_fedelc_is_masked_optim_without_mask_and_merge():
    own, first, second = data(), linear(), linear()
    states = [
        fit(method, model, own).state
        for method, model in ((FedELC(), first), (MaskedOptim(beta=0.2, keep=1.0, zeta=1.0), second))
    ]
    assert torch.equal(vector(first), vector(second))
    assert np.array_equal(states[0]["label_logits"], states[1]["label_logits"])
    assert not np.array_equal(states[0]["label_logits"], fit(MaskedOptim(), linear(), own).state["label_logits"])


def test_the_next_round_starts_from_the_labels_of_the_last():
    own, method = data(), MaskedOptim()
    first = fit(method, linear(), own)
    again, fresh = fit(method, linear(), own, first.state), fit(method, linear(), own)
    assert np.array_equal(fresh.state["label_logits"], first.state["label_logits"])
    assert not np.allclose(again.state["label_logits"], fresh.state["label_logits"])


def test_the_belief_about_labels_is_a_distribution_or_nothing():
    method = MaskedOptim()
    assert method.corrected({}) is None
    belief = method.corrected(fit(method, linear(), data()).state)
    assert belief is not None
    assert belief.shape == (41, 10)
    assert belief.dtype == np.float32
    np.testing.assert_allclose(belief.sum(1), 1, atol=1e-6)


def test_a_lost_state_is_said(caplog: pytest.LogCaptureFixture):
    own = data()
    with caplog.at_level(logging.WARNING):
        fit(MaskedOptim(), linear(), own, learned=False)
        assert caplog.records == []
        fit(MaskedOptim(), linear(), own, learned=True)
        assert "it has corrected labels before, but its state is lost" in caplog.messages[-1]
        assert caplog.messages[-1].startswith("Client 0 starts from its given labels in round 1")
        kept = {"label_logits": np.ones((40, 10), np.float32)}
        result = fit(MaskedOptim(), linear(), own, kept, learned=True)
        assert "(40, 10) and do not fit the data, (41, 10)" in caplog.messages[-1]
    assert len(caplog.records) == 2
    assert np.array_equal(result.state["label_logits"], fit(MaskedOptim(), linear(), own).state["label_logits"])


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize(
    ("own", "batch_size"),
    [
        (data(count=20, keep_classes=1, wrong=0.0), 8),  # one class
        (data(count=5), 64),  # fewer examples than a batch
        (data(count=1), 16),
        (data(keep_classes=7), 16),  # empty classes
        (data(wrong=1.0), 16),  # all labels wrong
        (data(classes=100), 16),
    ],
)
@pytest.mark.parametrize("role", ["noisy", "clean"])
def test_odd_data_gives_finite_weights_and_labels(form: str, own: ClientData, batch_size: int, role: str):
    model, state = linear(classes=own.num_classes), {}
    method = METHODS.build("masked-optim", f'objective = "{form}"')
    for _ in range(3):
        result = fit(method, model, own, state, role, batch_size=batch_size)
        state = result.state
        assert np.isfinite(result.metrics["train-loss"])
    assert torch.isfinite(vector(model)).all()
    assert set(state) == ({"label_logits"} if role == "noisy" else set())
    if role == "noisy":
        assert state["label_logits"].shape == (len(own), own.num_classes)
        assert np.isfinite(state["label_logits"]).all()
        np.testing.assert_allclose(state["label_logits"].sum(1), 10, rtol=1e-5)


def test_two_classes():
    own = data(count=30, classes=2, keep_classes=2)
    result = fit(MaskedOptim(), linear(classes=2), own, epochs=10)
    assert result.state["label_logits"].shape == (30, 2)
    assert np.isfinite(result.state["label_logits"]).all()


@pytest.mark.parametrize("form", ["code", "paper"])
def test_a_good_model_repairs_labels(form: str):
    """Of 300 examples 30 % have the next class's label; the network has seen the right ones."""
    own, truth = data(count=300, wrong=0.3), data(count=300, wrong=0.0).labels
    model = linear()
    clean = ClientData(0, own.features, truth, own.ids, 10)
    METHODS.build("sgd").fit(
        model, kit_of(clean, TrainSettings(epochs=30, batch_size=16)), RoundConfig(1, 0.1, (1, 0, 1)), {}
    )
    method = METHODS.build("masked-optim", f'objective = "{form}"')
    state: State = {}
    for _ in range(3):
        state = fit(method, model, own, state, epochs=5).state
    belief = method.corrected(state)
    assert belief is not None
    assert (own.labels == truth).mean() == pytest.approx(0.7)
    assert (belief.argmax(1) == truth).mean() > 0.85
