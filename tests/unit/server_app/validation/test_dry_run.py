"""What a plug-in returns is tried before any client starts; here is what is said about each mistake, word by word."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_app.validation.config import check, validate
from tasks.config import ConfigError

BROKEN = """
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from client_app.losses import Loss
from client_app.methods import ClientMethod, FitResult
from strategies.server_optimizers import ServerOptimizer
from tasks.base import Examples
from tasks.images import Digits
from tasks.noise.base import LabelNoise
from tasks.noise.rates import RateDistribution
from tasks.partition import Partitioner


class Reduced(Loss):
    def __call__(self, logits, target):
        return F.cross_entropy(logits, target)


class Unmasked(Loss):
    def __call__(self, logits, target):
        return F.cross_entropy(logits, target.clamp(min=0), reduction="none")


class Detached(Loss):
    def __call__(self, logits, target):
        return F.cross_entropy(logits.detach(), target, reduction="none")


class Infinite(Loss):
    def __call__(self, logits, target):
        return F.cross_entropy(logits, target, reduction="none") / 0


class Numeric(Loss):
    def __call__(self, logits, target):
        return 0.5


def mean(logits, labels):
    return F.cross_entropy(logits, labels)


class MeanModule(nn.Module):
    def forward(self, logits, labels):
        return F.cross_entropy(logits, labels)


class Silent(ClientMethod):
    def fit(self, model, kit, plan, state):
        kit.trainer.options


class Torchy(ClientMethod):
    def fit(self, model, kit, plan, state):
        return FitResult({"train-loss": 1.0}, {"seen": torch.zeros(1)})


class Wordy(ClientMethod):
    def fit(self, model, kit, plan, state):
        return FitResult({"train-loss": "low"})


class Typo(ClientMethod):
    def fit(self, model, kit, plan, state):
        return kit.trianer


def counted(num_classes):
    COUNTED.append(num_classes)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


COUNTED = []


def too_wide(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes + 1))


def too_narrow(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(10, num_classes))


def halved(updates, client_weights):
    return updates.mean(0)[: updates.shape[1] // 2]


def undefined(updates, client_weights):
    return updates.mean(0) * np.nan


class Longer(ServerOptimizer):
    def apply(self, update, squared_norms, weights, robust):
        return np.append(update, 0)


class Dropping(LabelNoise):
    def __call__(self, labels, rng, *, features=None, ids=None):
        return labels[:-1]


class Outside(LabelNoise):
    def __call__(self, labels, rng, *, features=None, ids=None):
        return labels + 10


class Floating(LabelNoise):
    def __call__(self, labels, rng, *, features=None, ids=None):
        return labels.astype(float)


class Percent(RateDistribution):
    def __call__(self, num_clients, rng):
        return np.full(num_clients, 30.0)


class Stranger(Partitioner):
    def owners(self, labels, num_clients, rng):
        return np.arange(len(labels)) % (num_clients + 1)


class Partial(Partitioner):
    def owners(self, labels, num_clients, rng):
        return np.zeros(3, dtype=np.int64)


class Overlapping(Partitioner):
    def owners(self, labels, num_clients, rng):
        raise NotImplementedError

    def __call__(self, labels, num_clients, rng):
        return [np.arange(len(labels)) for _ in range(num_clients)]


class NoTest(Digits):
    def test_examples(self):
        return Examples(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), np.zeros(0, dtype=np.int64))


class Tuples(Digits):
    def train_examples(self):
        return [1], [2]


class Unnamed(Digits):
    class_names = ("only",)


class Fewer(Digits):
    class_names = tuple("01234")


class Raw(Digits):
    def prepare(self, features):
        return features


class Flat(Digits):
    def prepare(self, features):
        return super().prepare(features).flatten(1)
"""
NO_MEAN = (
    "must return one value per label, (8,), got (); leave out its mean or sum, or give it an argument reduction, which "
    "is set to 'none'"
)
MESSAGES = [
    ("loss", "Reduced", "expected one value per label, (8,), got (): do not reduce it, the trainer takes the mean"),
    ("loss", "Unmasked", "an element with the label -100 (no label) must have the loss 0"),
    ("loss", "Detached", "the loss has no gradient: compute it from the logits, without detach() or numpy()"),
    ("loss", "Infinite", "the loss of ordinary logits is not finite"),
    ("loss", "Numeric", "the loss must return a tensor, got float"),
    ("loss", "mean", f"mean {NO_MEAN}"),
    ("loss", "MeanModule", f"MeanModule {NO_MEAN}"),
    ("method", "Silent", "fit must return a FitResult, got NoneType"),
    ("method", "Torchy", "the state 'seen' must be a NumPy array, got Tensor"),
    ("method", "Wordy", "the metric 'train-loss' must be a finite number, got 'low'"),
    ("method", "Typo", "AttributeError: 'TrainContext' object has no attribute 'trianer' (broken_parts.py, line 68)"),
    ("model", "too_wide", "the model must return one score per class, (8, 10), got (8, 11)"),
    ("strategy.aggregator", "halved", "halved must return (7,) values, got (3,)"),
    ("strategy.aggregator", "undefined", "undefined returned values that are not finite"),
    ("strategy.server-optimizer", "Longer", "apply must return an array of shape (7,), got (8,)"),
    ("task", "NoTest", "test_examples returned no examples: at least one is needed"),
    ("task", "Tuples", "train_examples must return tasks.base.Examples, got tuple"),
    ("task", "Unnamed", "class_names must hold at least 2 names, got ('only',)"),
    ("task", "Fewer", "train_examples: labels must lie in 0..4, but run from 0 to 9"),
    ("task", "Raw", "prepare must return float32, got torch.uint8"),
    ("task", "Flat", "prepare must return (8, 1, 8, 8) for input_shape (1, 8, 8), got (8, 64)"),
]
LABELS = {"strategy.aggregator": "aggregator", "strategy.server-optimizer": "server optimizer", "task": "task: task"}


@pytest.fixture(autouse=True)
def broken_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "broken_parts.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("broken_parts", None)


def errors(**changes: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check({"num-server-rounds": 1, "partition.args": "alpha = 1.0", **changes})
    return caught.value.errors


@pytest.mark.parametrize(("kind", "name", "message"), MESSAGES)
def test_what_a_part_returns_is_tried(kind: str, name: str, message: str) -> None:
    path, key = f"broken_parts:{name}", kind if "." in kind else f"{kind}.name"
    assert errors(**{key: path}) == [f"{LABELS.get(kind, kind)} {path!r}: {message}"]


def test_a_model_for_other_inputs_is_shown_with_its_own_error() -> None:
    [line] = errors(**{"model.name": "broken_parts:too_narrow"})
    assert line.startswith("model 'broken_parts:too_narrow': RuntimeError: ")
    assert "shapes cannot be multiplied (8x64 and 10x10)" in line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Dropping", r"must return int64 labels of shape \(\d+,\), got int64 of shape \(\d+,\)"),
        ("Floating", r"must return int64 labels of shape \(\d+,\), got float64 of shape \(\d+,\)"),
        ("Outside", r"must return labels in 0..9, got 1\d"),
    ],
)
def test_a_noise_must_return_labels(name: str, message: str) -> None:
    [line] = errors(**{"noise.name": f"broken_parts:{name}"})
    assert re.fullmatch(f"noise: noise 'broken_parts:{name}' {message}", line)


def test_a_rate_distribution_must_return_rates() -> None:
    [line] = errors(**{"noise.rates": "broken_parts:Percent", "noise.rates-args": ""})
    label = "noise.rates: noise-rate distribution 'broken_parts:Percent' must return 20 rates between 0 and 1"
    assert line == f"{label}, got shape (20,) with values from 30 to 30"


@pytest.mark.parametrize(("name", "found"), [("Stranger", "numbers from 0 to 20"), ("Partial", "int64 of shape (3,)")])
def test_a_partition_must_give_every_example_to_a_client(name: str, found: str) -> None:
    [line] = errors(**{"partition.name": f"broken_parts:{name}", "partition.args": ""})
    assert line == (
        f"partition: {name}.owners must return one client number per example, whole numbers 0..19 of shape (1293,), "
        f"got {found} (evaluate.validation holds out 144 of 1437 examples; 0 = none)"
    )


def test_a_partition_must_be_disjoint() -> None:
    assert errors(**{"partition.name": "broken_parts:Overlapping", "partition.args": ""}) == [
        "partition: partition 'broken_parts:Overlapping' must return 20 disjoint lists that cover all 1293 examples"
    ]


def test_mistakes_in_independent_parts_are_said_at_once() -> None:
    found = errors(**{"loss.name": "broken_parts:Reduced", "strategy.aggregator": "broken_parts:halved"})
    assert [line.split(":")[0] for line in found] == ["aggregator 'broken_parts", "loss 'broken_parts"]


def test_a_model_is_built_once() -> None:
    flat = {"model.name": "broken_parts:counted", "variants": "ce = { loss.name = 'ce' }\nfsanl = {}"}
    validate({"num-server-rounds": 1, "partition.args": "alpha = 1.0", **flat})
    assert sys.modules["broken_parts"].COUNTED == [10]
