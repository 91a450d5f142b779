"""FedNoRo's noisy clients: the loss against NumPy, the ramp, limit cases and odd data."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from client_app.losses import build
from client_app.methods import METHODS, FitResult, RoundConfig, TrainContext
from client_app.methods.fednoro import Distillation, FedNoRo, ramp
from client_app.trainer import Batch, Trainer, to_device
from tasks.base import ClientData
from tasks.settings import TrainSettings
from tests.unit.client_app.methods.stepping import CPU, TASK, data, linear, normed, softmax, vector
from tests.unit.client_app.methods.test_masked_optim import kit_of


def fit(
    method: FedNoRo, model: nn.Module, own: ClientData, since: int = 99, role: str = "noisy", loss: str = "la-ce"
) -> FitResult:
    objective = build(loss, own.num_classes, class_counts=own.class_counts())
    context = TrainContext(
        Trainer(TASK, TrainSettings(epochs=2, batch_size=16), CPU), objective, to_device(own, CPU), 10
    )
    return method.fit(model, context, RoundConfig(1, 0.1, (1, 0, 1), role, {"rounds-since-detection": since}), {})


def plain(model: nn.Module, own: ClientData) -> torch.Tensor:
    context = kit_of(own, TrainSettings(epochs=2, batch_size=16))
    METHODS.build("sgd").fit(model, context, RoundConfig(1, 0.1, (1, 0, 1)), {})
    return vector(model)


def batch_loss_of(received: nn.Module, own: ClientData, weight: float, temperature: float = 0.8) -> Distillation:
    return Distillation(received, kit_of(own, TrainSettings()), temperature, weight)


@pytest.mark.parametrize("classes", [10, 6])
def test_the_loss_is_the_published_one(classes: int):
    own = data(count=20, keep_classes=classes)
    batch = Batch(torch.arange(20), own.features, torch.from_numpy(own.labels))
    inputs, model = TASK.prepare(own.features), normed()
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    found = batch_loss_of(model, own, 0.3).loss(model, batch, inputs, logits)

    shares = np.bincount(own.labels, minlength=10) / 20
    with torch.no_grad():
        teacher = softmax(model.eval()(inputs).double().numpy() / 0.8)
    student = shares * np.exp(logits.double().numpy())
    student /= student.sum(1, keepdims=True)
    present = shares > 0
    assert present.sum() == classes
    distance = (teacher * (np.log(teacher) - np.log(np.where(present, student, 1))))[:, present].sum(1)
    own_loss = -np.log(student[np.arange(20), own.labels])
    assert found.item() == pytest.approx((0.7 * own_loss + 0.3 * distance).mean(), rel=1e-5)


def test_a_noisy_client_trains_with_the_method_s_own_temperature_and_weight():
    own, method, model = data(count=20), FedNoRo(weight=0.7, temperature=0.4, ramp_rounds=10), normed()
    noisy = RoundConfig(1, 0.1, (1, 0, 1), "noisy", {"rounds-since-detection": 5})
    found = method.plan(model, kit_of(own, TrainSettings()), noisy, {}).batch_loss
    assert isinstance(found, Distillation)
    assert (found.temperature, found.weight) == (0.4, pytest.approx(0.7 * np.exp(-5 / 4)))


def test_the_ramp_is_the_published_one():
    expected = [0.8 * math.exp(-5 * (1 - min(since / 39, 1)) ** 2) for since in (0, 10, 39, 60)]
    assert [ramp(0.8, since, 39) for since in (0, 10, 39, 60)] == pytest.approx(expected)
    assert ramp(0.8, 0, 39) == pytest.approx(0.8 * math.exp(-5))
    assert ramp(0.8, 0, 0) == 0.8


def test_clean_clients_and_weight_zero_train_plainly():
    own = data()
    expected = plain(linear(), own)
    for role, weight in (("clean", 0.8), ("unknown", 0.8), ("noisy", 0.0)):
        model = linear()
        fit(FedNoRo(weight=weight), model, own, role=role)
        assert torch.equal(vector(model), expected)


def test_the_teacher_is_the_received_model_throughout_and_only_looks():
    own, model = data(), normed()
    received = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch_loss = batch_loss_of(model, own, 1.0)
    with torch.no_grad():
        expected = model.eval()(TASK.prepare(own.features))
        for parameter in model.parameters():
            parameter.add_(1.0)
        assert torch.equal(batch_loss.teacher(TASK.prepare(own.features)), expected)
    for name, tensor in batch_loss.teacher.state_dict().items():
        assert torch.equal(tensor, received[name])


def test_at_full_weight_given_labels_matter_only_through_their_counts():
    own = data()
    other = ClientData(0, own.features, own.labels[::-1].copy(), own.ids, 10)
    sent = []
    for shown in (own, other):
        model = linear()
        fit(FedNoRo(weight=1.0, ramp_rounds=0), model, shown)
        sent.append(vector(model))
    assert torch.equal(*sent)
    assert not torch.equal(sent[0], vector(linear()))


def test_the_teacher_holds_against_wrong_labels_more_and_more():
    """The received network has seen the right labels; the client's are all wrong."""
    model, truth = linear(), data(count=200, wrong=0.0)
    for _ in range(10):
        plain(model, truth)
    good = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    right = []
    for since in (0, 20, 39):
        model.load_state_dict(good)
        fit(FedNoRo(), model, data(count=200, wrong=1.0), since=since)
        with torch.no_grad():
            predicted = model(TASK.prepare(truth.features)).argmax(1).numpy()
        right.append((predicted == truth.labels).mean())
    assert right[0] < 0.2
    assert right[0] < right[1] < right[2]
    assert right[2] > 0.7


def test_a_strategy_that_does_not_say_since_when_is_refused():
    with pytest.raises(ValueError, match=r"fednoro needs 'rounds-since-detection'.*noise-partition"):
        FedNoRo().fit(linear(), kit_of(data(), TrainSettings()), RoundConfig(1, 0.1, (1, 0, 1), "noisy"), {})


@pytest.mark.parametrize(
    "own",
    [data(count=20, keep_classes=1, wrong=0.0), data(count=5), data(count=1), data(keep_classes=7), data(wrong=1.0)],
)
@pytest.mark.parametrize("loss", ["la-ce", "ce", "fsanl"])
def test_odd_data_gives_finite_weights(own: ClientData, loss: str):
    model = linear()
    result = fit(FedNoRo(), model, own, loss=loss)
    assert np.isfinite(result.metrics["train-loss"])
    assert torch.isfinite(vector(model)).all()
    assert result.state == {}
