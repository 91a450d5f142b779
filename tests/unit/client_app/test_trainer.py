import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from client_app.batch_splits import _say_that_statistics_are_used, single_example, smallest_batch
from client_app.losses import L2ToGlobal, Objective, RegularizerInput, build
from client_app.methods import METHODS, RoundConfig, TrainContext
from client_app.trainer import Trainer, learning_rate, pick_device, to_device
from tasks.base import ClientData
from tasks.images import Digits
from tasks.seeds import torch_seed
from tasks.settings import TrainSettings
from tests.odd_models import LazyCache, Normed

CPU = torch.device("cpu")
TASK = Digits()


def data(count: int = 37) -> ClientData:
    examples = TASK.train_examples().take(np.arange(count))
    return ClientData(0, examples.features, examples.labels, np.arange(count), 10)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def fit(model: nn.Module, options: TrainSettings, server_round: int = 1) -> float:
    trainer = Trainer(TASK, options, CPU)
    trained = trainer.fit(
        model, to_device(data(), CPU), build("ce", 10), {}, options.learning_rate, (1, 0, server_round)
    )
    return trained.loss


def test_one_full_batch_is_one_step_of_gradient_descent():
    model = network()
    expected = copy.deepcopy(model)
    own = data()
    inputs, labels = own.features.float() / 16, torch.from_numpy(own.labels)
    loss = F.cross_entropy(expected(inputs), labels)
    gradients = torch.autograd.grad(loss, list(expected.parameters()))
    options = TrainSettings(epochs=1, batch_size=64, learning_rate=0.3, momentum=0.0)
    assert fit(model, options) == pytest.approx(loss.item(), rel=1e-6)
    for after, before, gradient in zip(model.parameters(), expected.parameters(), gradients, strict=True):
        torch.testing.assert_close(after, before - 0.3 * gradient, rtol=1e-5, atol=1e-7)


def test_the_mean_loss_counts_every_example_once():
    options = TrainSettings(epochs=1, batch_size=10, learning_rate=1e-12, momentum=0.0)
    own = data()
    with torch.no_grad():
        expected = F.cross_entropy(network()(own.features.float() / 16), torch.from_numpy(own.labels))
    assert fit(network(), options) == pytest.approx(expected.item(), rel=1e-5)


class Inverted(Digits):
    """Digits whose augmentation can be seen: black is white."""

    def augment(self, features: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return 16 - features


@pytest.mark.parametrize("augment", [True, False])
def test_the_task_s_augmentation_is_used_if_wanted(augment: bool):
    own = to_device(data(), CPU)
    for batch in Trainer(Inverted(), TrainSettings(augment=augment), CPU).batches(network(), own, 1):
        seen = own.features[batch.indices]
        assert torch.equal(batch.features, 16 - seen if augment else seen)


def test_a_round_repeats_and_rounds_and_clients_differ():
    options = TrainSettings(epochs=2, batch_size=8)

    def weights(server_round: int) -> torch.Tensor:
        model = network()
        fit(model, options, server_round)
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_every_epoch_visits_every_example_in_another_order():
    trainer = Trainer(TASK, TrainSettings(epochs=2, batch_size=10), CPU)
    batches = [batch.indices for batch in trainer.batches(network(), to_device(data(), CPU), seed=3)]
    first, second = torch.cat(batches[:4]), torch.cat(batches[4:])
    assert [len(batch) for batch in batches] == [10, 10, 10, 7] * 2
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(37))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(
    ("count", "drop", "norm", "sizes"),
    [
        (37, True, False, [10, 10, 10]),
        (5, True, False, [5]),
        (31, False, True, [10, 10, 10]),
        (31, False, False, [10, 10, 10, 1]),
    ],
)
def test_last_batches(count: int, drop: bool, norm: bool, sizes: list[int]):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)) if norm else network()
    trainer = Trainer(TASK, TrainSettings(epochs=1, batch_size=10, drop_last=drop), CPU)
    assert [len(batch) for batch in trainer.batches(model, to_device(data(count), CPU), 1)] == sizes


def one_at_a_time(model: nn.Module, count: int = 3) -> torch.Tensor:
    """Train on single examples, and return by how much the first parameter moved."""
    before = next(model.parameters()).detach().clone()
    trainer = Trainer(TASK, TrainSettings(epochs=1, batch_size=1), CPU)
    trainer.fit(model, to_device(data(count), CPU), build("ce", 10), {}, 0.1, (1, 0, 1))
    return (next(model.parameters()).detach() - before).norm()


def test_batch_norm_uses_its_running_statistics_where_a_batch_is_one_value(caplog: pytest.LogCaptureFixture):
    _say_that_statistics_are_used.cache_clear()
    model = Normed().train()
    expected = copy.deepcopy(model)
    expected.norm.eval().requires_grad_(False)
    own = data(3)
    with single_example(model) as switched, torch.no_grad():
        got = model(TASK.prepare(own.features[:1]))
    assert torch.equal(got, expected(TASK.prepare(own.features[:1])))
    assert switched == [model.norm]
    assert model.norm.training
    assert one_at_a_time(model) > 0
    assert not model.norm.running_mean.any()
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    with pytest.raises(ValueError, match=r"BatchNorm1d.* keeps no running statistics"):
        one_at_a_time(Normed(running=False))


def test_one_image_has_batch_statistics_of_its_own():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    expected = copy.deepcopy(model).train()
    inputs = TASK.prepare(data(1).features)
    with single_example(model.train()) as switched:
        assert torch.equal(model(inputs), expected(inputs))
    assert not switched
    assert torch.equal(model[0].running_mean, expected[0].running_mean)
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize(
    ("count", "size", "drop", "norm", "smallest"),
    [(31, 10, False, False, 1), (31, 10, True, False, 10), (31, 10, False, True, 10), (1, 10, True, True, 1)],
)
def test_the_smallest_batch_of_a_client(count: int, size: int, drop: bool, norm: bool, smallest: int):
    assert smallest_batch(count, TrainSettings(batch_size=size, drop_last=drop), norm) == smallest


def test_a_model_that_was_asked_first_can_be_trained():
    model, trainer = LazyCache(), Trainer(TASK, TrainSettings(epochs=1, batch_size=8), CPU)
    trainer.probabilities(model, to_device(data(), CPU))
    assert model.cache is not None
    assert one_at_a_time(model) > 0


def test_clipping_limits_the_step():
    model = network()
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    fit(model, TrainSettings(epochs=1, batch_size=64, learning_rate=1.0, momentum=0.0, clip_norm=0.01))
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_optimizer_and_precision_learns(optimizer: str, precision: str):
    rate = 0.2 if optimizer == "sgd" else 0.01
    options = TrainSettings(optimizer=optimizer, precision=precision, learning_rate=rate, epochs=20, batch_size=8)
    model = network()
    first = fit(model, TrainSettings(epochs=1, learning_rate=1e-12, momentum=0.0))
    fit(model, options)
    assert fit(model, TrainSettings(epochs=1, learning_rate=1e-12, momentum=0.0)) < 0.2 * first


def reference_fit(model: nn.Module, objective: Objective, received: dict[str, torch.Tensor], options: TrainSettings):
    """Train as everybody would write it: one graph for loss and penalties, torch's own clipping and optimizers."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    more = {"momentum": options.momentum} if options.optimizer == "sgd" else {}
    optimizer = kinds[options.optimizer](model.parameters(), 0.1, weight_decay=options.weight_decay, **more)
    total, seen, trainer = torch.zeros(()), 0, Trainer(TASK, options, CPU)
    for batch in trainer.batches(model, to_device(data(), CPU), torch_seed(1, "train", 0, 1)):
        optimizer.zero_grad()
        value = objective(model(TASK.prepare(batch.features)), batch.labels, model, received)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        optimizer.step()
        total, seen = total + value.detach() * len(batch), seen + len(batch)
    return total.item() / seen


@pytest.mark.parametrize(
    ("loss", "change"),
    [
        ("ce", {}),
        ("fsanl", {"momentum": 0.0, "weight_decay": 0.01}),
        ("fsanl", {"weight_decay": 0.01}),
        ("anl-ce", {"optimizer": "adam"}),
        ("anl-fl*", {"optimizer": "adamw", "weight_decay": 0.01}),
        ("nce+agce", {}),
        ("rce", {}),
    ],
)
def test_training_has_the_bits_of_plain_torch(loss: str, change: dict[str, Any]):
    options = TrainSettings(epochs=3, batch_size=8, clip_norm=0.5, **change)
    objective = build(loss, 10).with_regularizer(0.01, L2ToGlobal())
    received = {name: parameter.detach() for name, parameter in network(1).named_parameters()}
    own, plain = network(), network()
    trained = Trainer(TASK, options, CPU).fit(own, to_device(data(), CPU), objective, received, 0.1, (1, 0, 1))
    assert trained.loss == reference_fit(plain, objective, received, options)
    for one, other in zip(own.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_parameters_that_the_network_does_not_use_are_moved_by_the_penalty_alone():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = network(), nn.Parameter(torch.tensor([3.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model, options = Unused(), TrainSettings(epochs=1, batch_size=64, momentum=0.0, clip_norm=0.0)
    objective = build("ce", 10).with_regularizer(0.5, L2ToGlobal())
    received = {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}
    Trainer(TASK, options, CPU).fit(model, to_device(data(), CPU), objective, received, 0.1, (1, 0, 1))
    assert model.unused.item() == pytest.approx(3 - 0.1 * 0.5 * (3 - 1))


def test_schedules():
    cosine = TrainSettings(learning_rate=0.2, schedule="cosine")
    assert [learning_rate(cosine, r, 4) for r in (1, 3, 5)] == pytest.approx([0.2, 0.1, 0.0])
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=7)
    for server_round in range(1, 8):
        assert learning_rate(cosine, server_round, 7) == pytest.approx(scheduler.get_last_lr()[0])
        reference.step()
        scheduler.step()
    step = TrainSettings(learning_rate=0.2, schedule="step", step_rounds=3, step_factor=0.1)
    assert [learning_rate(step, r, 9) for r in (1, 3, 4, 7)] == pytest.approx([0.2, 0.2, 0.02, 0.002])
    assert learning_rate(TrainSettings(learning_rate=0.2), 9, 9) == 0.2


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"train.device = 'cuda', but this machine has only: cpu"):
        pick_device("cuda")
    assert pick_device("auto") == CPU


def run_method(name: str, args: str, config: dict[str, object] | None = None) -> torch.Tensor:
    model = network()
    context = TrainContext(
        Trainer(TASK, TrainSettings(epochs=3, batch_size=8), CPU), build("ce", 10), to_device(data(), CPU), 10
    )
    METHODS.build(name, args).fit(model, context, RoundConfig(1, 0.1, (1, 0, 1), config=config or {}), {})
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_fedprox_with_mu_zero_is_plain_training_and_a_large_mu_stays_near_the_global_model():
    start = nn.utils.parameters_to_vector(network().parameters()).detach()
    plain = run_method("sgd", "")
    assert torch.equal(run_method("fedprox", "mu = 0.0"), plain)
    near, far = (run_method("fedprox", "mu = 2.0") - start).norm(), (plain - start).norm()
    assert near < 0.5 * far
    assert torch.equal(run_method("fedprox", "mu = 0.0", {"proximal-mu": 2.0}), run_method("fedprox", "mu = 2.0"))


def test_the_proximal_gradient_is_mu_times_the_distance():
    model, global_parameters = network(), {name: p.detach() for name, p in network(1).named_parameters()}
    penalty = L2ToGlobal()(RegularizerInput(model=model, global_parameters=global_parameters))
    gradients = torch.autograd.grad(0.7 * penalty, list(model.parameters()))
    for gradient, (name, parameter) in zip(gradients, model.named_parameters(), strict=True):
        torch.testing.assert_close(gradient, 0.7 * (parameter.detach() - global_parameters[name]))


def test_objectives_that_look_at_the_inputs_can_be_trained():
    trainer = Trainer(TASK, TrainSettings(epochs=1, batch_size=16), CPU)
    objective = build("anl-ce", 10, 'regularizer = "jacobian", delta = 0.01')
    model = network()
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    trainer.fit(model, to_device(data(), CPU), objective, {}, 0.1, (1, 0, 1))
    assert not torch.equal(before, nn.utils.parameters_to_vector(model.parameters()).detach())
