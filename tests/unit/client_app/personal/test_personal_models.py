"""Training alone and personal models: the budget is the run's, and only the part that is asked for changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from client_app.local import train_locally
from client_app.methods import METHODS, RoundConfig
from client_app.personal.alone import needs_others, settings_alone, train_alone
from client_app.personal.tuning import tune, tuned_parameters
from client_app.trainer import learning_rate
from tasks.base import ClientData, DataError
from tasks.client_data import client_dataset, load_task
from tasks.config import Flat, parse
from tasks.fresh_model import initial_model
from tasks.images import Digits
from tasks.settings import Settings
from tasks.weights import model_arrays

CPU = torch.device("cpu")
QUICK: Flat = {
    "federation.num-clients": 20,
    "model.name": "mlp",
    "train.epochs": 1,
    "train.threads": 1,
    "train.schedule": "cosine",
    "loss.name": "ce",
}


def part(changes: Flat | None = None) -> tuple[Settings, ClientData]:
    settings = parse(QUICK | (changes or {}))
    return settings, client_dataset(settings, 0).data


def test_alone_is_a_federation_of_one_site() -> None:
    settings, data = part()
    model, _ = train_alone(data, settings, rounds=3, planned=20, device=CPU)

    expected, state = initial_model(settings), None
    for number in (1, 2, 3):
        config = RoundConfig(number, learning_rate(settings.train, number, 20), (settings.seed, 0, number))
        state = train_locally(expected, data, settings, config, state, CPU).state
    for name, array in model_arrays(model).items():
        np.testing.assert_array_equal(array, model_arrays(expected)[name])
    start = model_arrays(initial_model(settings))
    unchanged, _ = train_alone(data, settings, rounds=0, planned=20, device=CPU)
    assert all(np.array_equal(array, start[name]) for name, array in model_arrays(unchanged).items())


@pytest.mark.parametrize("name", sorted(entry.name for entry in METHODS.entries()))
def test_every_method_can_be_done_alone_or_gives_way(name: str) -> None:
    settings, data = part({"method.name": name, "method.args": "", "train.epochs": 1})
    method = METHODS.build(name, "")
    assert (settings_alone(settings).method.name != name) == needs_others(method)
    few = data.take(np.arange(24))
    model, _ = train_alone(few, settings, rounds=1, planned=2, device=CPU)
    assert all(np.isfinite(array).all() for array in model_arrays(model).values())


class Small(nn.Sequential):
    """A convolution, BatchNorm and a last layer."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)
        )


@pytest.mark.parametrize(
    ("wanted", "changed"),
    [
        ("head", {"4.weight", "4.bias"}),
        ("norm", {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}),
        ("all", {*Small().state_dict()}),
    ],
)
def test_only_the_chosen_part_is_tuned(wanted: str, changed: set[str]) -> None:
    settings, data = part({"personal.tune": wanted, "personal.epochs": 1, "method.name": "fedprox"})
    torch.manual_seed(0)
    model = Small()
    model(torch.randn(8, 1, 8, 8))  # BatchNorm has seen something
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tune(model, data, settings, rounds=3, device=CPU)
    assert {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])} == changed


def test_tuning_is_slower_than_the_run_unless_it_is_said() -> None:
    plain: Flat = {"train.momentum": 0.0, "train.clip-norm": 0.0}
    settings, data = part({"personal.tune": "head", "personal.epochs": 1} | plain)
    steps = []
    for rate in (0.0, 0.1 * settings.train.learning_rate, settings.train.learning_rate):
        model = initial_model(settings)
        start = model_arrays(model)["3.weight"].copy()
        own = replace(settings, personal=replace(settings.personal, learning_rate=rate))
        tune(model, data.take(np.arange(16)), own, 3, CPU)
        steps.append(float(np.linalg.norm(model_arrays(model)["3.weight"] - start)))
    assert steps[0] == steps[1] > 0
    assert steps[2] == pytest.approx(10 * steps[1], rel=1e-3)  # one step of plain gradient descent


def test_a_part_that_is_not_there_or_frozen_is_an_error() -> None:
    task, model = Digits(), Small()
    for parameter in model[4].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(DataError, match="no such parameters that may be trained"):
        tuned_parameters(model, "head", task)
    with pytest.raises(DataError, match="no such parameters"):
        tuned_parameters(load_task(parse(QUICK).task).build_model("mlp", ""), "norm", task)
    assert tuned_parameters(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "all", task) == {"1.weight", "1.bias"}
