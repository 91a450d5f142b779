"""Frozen parts of a model: not trained, in evaluation mode, kept by copies, and the same at every site."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from client_app import losses
from client_app.local import train_locally
from client_app.losses import GlobalParameters
from client_app.losses.regularizers import L1, L1ToGlobal, RegularizerInput
from client_app.methods import RoundConfig
from client_app.node import FrozenMismatchError, check_frozen
from client_app.trainer import LocalData, Trainer
from server_app.privacy import model_issues
from tasks.base import DataError, Task
from tasks.client_data import client_dataset, load_task
from tasks.fresh_model import fresh_model, initial_model, model_digest
from tasks.frozen_parts import freeze, frozen_digest
from tasks.images import Digits
from tasks.seeds import seed_everything
from tasks.settings import (
    FederationSettings,
    LossSettings,
    MethodSettings,
    ModelSettings,
    PrivacySettings,
    Settings,
    TaskSettings,
    TrainSettings,
)
from tasks.weights import frozen_names, load_arrays, model_arrays
from tests.odd_models import Tied

CPU = torch.device("cpu")
DIGITS = Settings(
    federation=FederationSettings(num_clients=4),
    model=ModelSettings("mlp", "hidden = 8", freeze="1.*"),
    loss=LossSettings("ce"),
    train=TrainSettings(learning_rate=0.05, epochs=2, batch_size=32, threads=1, device="cpu", weight_decay=0.01),
)


def body() -> nn.Module:
    """A block with everything that acts otherwise in training, before a head."""
    norm = nn.BatchNorm1d(6, affine=False)
    block = nn.Sequential(nn.Linear(4, 6), norm, nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(6))
    return nn.Sequential(block, nn.BatchNorm1d(6), nn.Linear(6, 3))


def test_a_frozen_block_stays_in_evaluation_mode_whoever_trains_and_whatever_is_copied() -> None:
    model = copy.deepcopy(freeze(body(), "0.*"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loose = {name for name in before if not name.startswith("0.")}
    assert frozen_names(model) == before.keys() - loose
    for _ in range(2):
        model.eval().train()
        model(torch.randn(5, 4)).sum().backward()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == {
        name for name in loose if name.endswith(("weight", "bias"))
    }
    assert model[1].training
    assert not any(module.training for module in model[0].modules())


def test_a_bare_batch_norm_with_one_frozen_parameter_learns_on() -> None:
    model = freeze(body(), "1.weight, 0.?.bias")
    assert frozen_names(model) == {"1.weight", "0.0.bias", "0.4.bias"}
    assert model.train()[1].training


def test_tied_weights_are_frozen_under_all_names_and_others_load_without_them() -> None:
    model = freeze(Tied(), "back.*")
    assert frozen_names(model) == {"embed.weight"}
    assert not model.get_parameter("embed.weight").requires_grad
    arrays = {name: np.zeros_like(array) for name, array in model_arrays(model).items() if name != "embed.weight"}
    kept = model.get_parameter("embed.weight").clone()
    load_arrays(model, arrays)
    assert torch.equal(model.get_parameter("back.weight"), kept)
    assert not model.get_parameter("linear.bias").any()
    with pytest.raises(RuntimeError, match=r"first\.weight"):
        load_arrays(model, {name: array for name, array in arrays.items() if name != "first.weight"})


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("0.*, fc.*", r"'fc\.\*' matches none of the model's parameters, which are 0\.0\.weight, .* and 5 more"),
        ("*", "all parameters are frozen, and nothing is left to train"),
        ("0.1.running_mean", "matches none"),
    ],
)
def test_a_pattern_must_leave_something_and_take_something(patterns: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        freeze(body(), patterns)


def test_penalties_take_what_is_trained() -> None:
    model = freeze(nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 3, bias=False)), "0.*")
    received: GlobalParameters = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    expected = model[1].weight.detach().double().abs().sum().item()
    for penalty in (L1(), L1ToGlobal()):
        value = penalty(RegularizerInput(model=model, global_parameters=received))
        assert value.item() == pytest.approx(expected, rel=1e-6)
        value.backward()
    assert torch.equal(model[1].weight.grad, 2 * model[1].weight.sign())
    assert model[0].weight.grad is None


def test_privacy_does_not_cover_what_never_leaves() -> None:
    private = Settings(privacy=PrivacySettings("local"))
    assert "0.1.running_mean" in model_issues(private, body())[0].text
    assert "1.running_mean" in (text := model_issues(private, freeze(body(), "0.*"))[0].text)
    assert "0.1" not in text
    assert not model_issues(private, freeze(body(), "0.*, 1.*"))


class Features(Digits):
    """Digits whose examples are features already."""

    def prepare(self, features: Tensor) -> Tensor:
        return features


def trained_head(task: Task, settings: Settings, model: nn.Module, features: Tensor) -> dict[str, Tensor]:
    """Train a model on the labels of client 0 and return its last layer."""
    data = client_dataset(settings, 0).data
    local = LocalData(features, torch.from_numpy(data.labels))
    objective = losses.build("ce", data.num_classes)
    Trainer(task, settings.train, CPU).fit(model, local, objective, {}, 0.05, (1, 0, 1))
    return model[-1].state_dict()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_frozen_body_trains_the_head_as_its_features_do(optimizer: str) -> None:
    settings = replace(DIGITS, train=replace(DIGITS.train, optimizer=optimizer, augment=False))
    task, model, raw = load_task(settings.task), fresh_model(settings), client_dataset(settings, 0).data.features
    with torch.no_grad():
        features = model[:-1](task.prepare(raw))
    start = copy.deepcopy(model[-1])
    alone = trained_head(Features(), settings, nn.Sequential(copy.deepcopy(start)), features)
    for name, tensor in trained_head(task, settings, model, raw).items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(tensor, start.state_dict()[name], atol=1e-2), "it has learned something"


def test_the_proximal_term_and_the_optimizer_leave_the_body_bit_for_bit() -> None:
    settings = replace(DIGITS, method=MethodSettings("fedprox", "mu = 1.0"))
    model, data = fresh_model(settings), client_dataset(settings, 0).data
    before = {name: array.tobytes() for name, array in model_arrays(model).items()}
    train_locally(model, data, settings, RoundConfig(1, 0.1, (1, 0, 1)), None, CPU)
    after = {name: array.tobytes() for name, array in model_arrays(model).items()}
    assert {name for name in before if before[name] != after[name]} == {"3.weight", "3.bias"}


def test_a_site_with_another_frozen_part_takes_no_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = model_digest(DIGITS)
    check_frozen(DIGITS, own)
    check_frozen(replace(DIGITS, model=ModelSettings("mlp")), "")
    other = replace(DIGITS, seed=2)
    with pytest.raises(FrozenMismatchError, match=f"have the digest {model_digest(other)[:12]}, the .* {own[:12]}"):
        check_frozen(other, own)
    gone = replace(DIGITS, model=replace(DIGITS.model, init="net.pt"), task=TaskSettings(weights_path=str(tmp_path)))
    with pytest.raises(
        FrozenMismatchError, match=r"on this node from the file 'net\.pt'.*; why is in its log"
    ) as caught:
        check_frozen(gone, own)
    assert str(tmp_path) not in str(caught.value), "a path is the site's own"
    assert str(tmp_path) in caplog.text


def test_frozen_parts_come_from_the_file_at_every_site_and_the_others_travel(tmp_path: Path) -> None:
    seed_everything(5)
    source = load_task(DIGITS.task).build_model("mlp", "hidden = 8")
    save_file(source.state_dict(), tmp_path / "net.safetensors")
    task = replace(DIGITS.task, weights_path=str(tmp_path))
    both = replace(DIGITS, task=task, model=replace(DIGITS.model, init="net.safetensors"))
    assert frozen_digest(fresh_model(both)) == frozen_digest(freeze(source, "1.*")) != model_digest(DIGITS)
    assert torch.equal(initial_model(both)[3].weight, source[3].weight)
    alone = replace(both, model=replace(both.model, freeze=""))
    assert not torch.equal(fresh_model(alone)[1].weight, source[1].weight), "a node needs no file"
    assert torch.equal(initial_model(alone)[1].weight, source[1].weight)
