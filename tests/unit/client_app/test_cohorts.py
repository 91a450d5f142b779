"""Cohorts: clients trained side by side end where each would alone, for all that allows it; all else is told apart."""

import copy
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client_app.attacks import attackers, run_client
from client_app.cohorts import choice
from client_app.cohorts.choice import Job, run_clients, side_by_side
from client_app.cohorts.networks import StackedModel, network_problem
from client_app.methods import FitResult, RoundConfig
from tasks.augmentation import crop_and_flip
from tasks.base import ClientData
from tasks.images import Digits
from tasks.models import MODELS
from tasks.settings import (
    AttackSettings,
    FederationSettings,
    LossSettings,
    MethodSettings,
    ModelSettings,
    Settings,
    TaskSettings,
    TrainSettings,
)
from tests import odd_models
from tests.loss_members import ELEMENTWISE

CPU = torch.device("cpu")
SIZES = (37, 16, 21, 37)  # two batches and more, and short last ones
CONFIG = {"rounds-since-detection": 20, "noise-level": 0.3, "want-lid": True}


class Shifted(Digits):
    """Digits that are shifted and mirrored at random."""

    def augment(self, features: Tensor, generator: torch.Generator) -> Tensor:
        return crop_and_flip(features, generator, 1)


def settings(loss: str = "ce", model: str = "mlp", method: str = "sgd", **train: object) -> Settings:
    options = TrainSettings(**{"epochs": 2, "learning_rate": 0.05, "device": "cpu", "cohort": "4", **train})
    return Settings(
        task=TaskSettings("digits"),
        model=ModelSettings(model, "hidden = 8" if model == "mlp" else ""),
        loss=LossSettings(loss),
        method=MethodSettings(method),
        federation=FederationSettings(num_clients=len(SIZES)),
        train=options,
    )


def jobs(options: Settings, roles: tuple[str, ...] = ("noisy",), model: nn.Module | None = None) -> list[Job]:
    """One round of clients with different numbers of examples; each lacks a class."""
    task = Digits()
    torch.manual_seed(0)
    start = model or MODELS.build(options.model.name, options.model.args, num_classes=10, input_shape=task.input_shape)
    made, everything = [], task.train_examples()
    for client, size in enumerate(SIZES):
        chosen = np.flatnonzero(everything.labels != client)[100 * client :][:size]
        examples = everything.take(chosen)
        data = ClientData(client, examples.features, examples.labels, chosen, 10)
        asked = RoundConfig(1, options.train.learning_rate, (1, client, 1), roles[client % len(roles)], CONFIG)
        made.append(Job(copy.deepcopy(start), data, asked, None))
    return made


def alone(work: list[Job], options: Settings) -> list[FitResult]:
    return [run_client(job.model, job.data, options, job.round_config, job.state, CPU) for job in work]


def vector(job: Job) -> Tensor:
    return nn.utils.parameters_to_vector(job.model.parameters()).detach()


def check(options: Settings, roles: tuple[str, ...] = ("noisy",), near: float = 2e-5) -> None:
    """Train side by side and one after the other from the same weights, and compare all that comes out."""
    one, many, start = jobs(options, roles), jobs(options, roles), vector(jobs(options)[0])
    found, expected = side_by_side(many, options, CPU), alone(one, options)
    assert sorted(found) == list(range(len(SIZES)))
    for place, (mine, theirs) in enumerate(zip(many, one, strict=True)):
        moved = (vector(theirs) - start).norm()
        assert moved > 0
        rounding = 1e-7 * start.norm()  # of the weights themselves
        assert (vector(mine) - vector(theirs)).norm() < near * moved + rounding
        assert found[place].metrics == pytest.approx(expected[place].metrics, rel=1e-4)
        assert found[place].state.keys() == expected[place].state.keys()
        for name, array in expected[place].state.items():
            np.testing.assert_allclose(found[place].state[name], array, rtol=1e-3, atol=1e-4)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_KNOWN", {})
    choice.say.cache_clear()


@pytest.mark.parametrize("loss", [member.name for member in ELEMENTWISE])
def test_every_loss_of_single_elements(loss: str):
    check(settings(loss, "mlp", epochs=1))


@pytest.mark.parametrize("method", ["sgd", "fedprox", "fedcorr", "fednoro", "masked-optim", "fedelc"])
def test_every_method(method: str):
    check(settings("la-ce" if method == "fednoro" else "ce", method=method), roles=("noisy", "clean"))


@pytest.mark.parametrize("args", ['objective = "paper", keep = 0.6', 'mask = "agreement"'])
def test_every_mask(args: str):
    options = settings("ce", method="masked-optim")
    check(replace(options, method=replace(options.method, args=args)))


@pytest.mark.parametrize(
    "train",
    [
        {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1},
        {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
        {"momentum": 0.0, "weight_decay": 0.1, "clip_norm": 0.0},
        {"clip_norm": 0.01, "drop_last": True},
    ],
)
def test_every_optimizer(train: dict[str, object]):
    check(settings("fsanl", **train))


@pytest.mark.parametrize("model", ["linear", "mlp", "digits-cnn"])
def test_every_small_network_on_augmented_images(model: str):
    options = settings("ce", model, batch_size=32, learning_rate=0.01, epochs=1)
    check(replace(options, task=TaskSettings(f"{__name__}:Shifted")))


@pytest.mark.parametrize("name", ["Odd", "Tied", "LazyCache", "RandomFeatures"])
def test_networks_of_any_kind_are_stacked(name: str):
    torch.manual_seed(0)
    model, inputs = getattr(odd_models, name)(), torch.rand(3, 5, 1, 8, 8)
    assert network_problem(model, inputs[0]) == ""
    stacked = StackedModel(model, 3)
    with torch.no_grad():
        for own in stacked.parameters:
            own.add_(0.1 * torch.randn_like(own))
    answers = stacked(inputs)
    for place in range(3):
        one = copy.deepcopy(model)
        stacked.write(place, one)
        torch.testing.assert_close(answers[place], one(inputs[place]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Normed", "keeps statistics"),
        ("Running", "keeps statistics"),
        ("Dropped", "draws at random"),
        ("Bfloat16", "not float32"),
        ("View", "parts of others"),
        ("Squeezing", "depends on the other examples"),
        ("ExtraState", "more than parameters"),
    ],
)
def test_networks_that_cannot_be_stacked(name: str, problem: str):
    assert problem in network_problem(getattr(odd_models, name)(), torch.rand(4, 1, 8, 8))


class Coupled(nn.Module):
    """Looks at the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.linear(x.flatten(1) - x.flatten(1).mean(0))
        return answers


def test_a_network_that_couples_examples_is_not_stacked():
    assert "depends on the other examples" in network_problem(Coupled(), torch.rand(4, 1, 8, 8))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (settings("anl-ce"), "differentiates by the inputs"),
        (settings(precision="bfloat16"), "train.precision is bfloat16"),
        (settings(method="trimmed"), "has a training of its own"),
        (settings("torch.nn:CrossEntropyLoss"), "may look at several elements"),
    ],
)
def test_what_cannot_be_together_is_trained_one_by_one_and_the_log_says_why(
    options: Settings, said: str, caplog: pytest.LogCaptureFixture
):
    if options.method.name == "trimmed":
        options = replace(options, method=MethodSettings("examples.trimmed_loss:TrimmedLoss"))
    if options.loss.name == "anl-ce":
        options = replace(options, loss=LossSettings("anl-ce", 'regularizer = "jacobian"'))
    one, many = jobs(options), jobs(options)
    expected = alone(one, options)
    for _ in range(2):
        many = jobs(options)
        assert run_clients(many, options, CPU) == expected
    assert all(torch.equal(vector(a), vector(b)) for a, b in zip(one, many, strict=True))
    assert [said in record.message for record in caplog.records if "one after the other" in record.message] == [True]


def test_hostile_clients_are_for_themselves():
    options = replace(settings(), attack=AttackSettings("sign-flip", share=0.25))
    one, many = jobs(options), jobs(options)
    alone(one, options)
    run_clients(many, options, CPU)
    (hostile,) = attackers(options)
    for place, (mine, theirs) in enumerate(zip(many, one, strict=True)):
        torch.testing.assert_close(vector(mine), vector(theirs), rtol=1e-4, atol=1e-5)
        assert torch.equal(vector(mine), vector(theirs)) == (place == hostile)


def test_clients_with_other_weights_are_in_other_cohorts(monkeypatch: pytest.MonkeyPatch):
    options, seen = settings(), list[int]()
    inner = choice.side_by_side
    monkeypatch.setattr(choice, "side_by_side", lambda work, *rest: seen.append(len(work)) or inner(work, *rest))
    one, many = jobs(options), jobs(options)
    with torch.no_grad():
        for work in (one, many):
            next(work[2].model.parameters()).add_(1.0)
    alone(one, options)
    run_clients(many, options, CPU)
    assert seen == [3, 1]
    for mine, theirs in zip(many, one, strict=True):
        torch.testing.assert_close(vector(mine), vector(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("faster", [True, False])
def test_auto_measures_and_leaves_no_trace(
    faster: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(choice, "WORTH", 0.0 if faster else 1e9)
    options = settings("ce", method="fedcorr")
    many, expected = jobs(options), jobs(options)
    run_clients(many, replace(options, train=replace(options.train, cohort="auto")), CPU)
    if faster:
        run_clients(expected, options, CPU)
    else:
        alone(expected, options)
    assert all(torch.equal(vector(a), vector(b)) for a, b in zip(many, expected, strict=True))
    assert ("they are trained side by side" in caplog.text) == faster
