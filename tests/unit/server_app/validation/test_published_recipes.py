"""Published settings: every option of every recipe fits its data set, and a federation with it starts.

Stand-ins take the place of the data sets: few examples of the same classes, small images. A linear model takes the
place of the recipe's, which is built for inputs of the published shape, without numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.in_process import Federation
from server_app.cli.config import RECIPES, read_toml
from server_app.cli.recipes import Recipe, read_recipe, recipe_layers
from server_app.validation.config import validate
from tasks.arguments import bind, parse_args
from tasks.base import TASKS, Examples, Task
from tasks.config import DEFAULTS, Flat, overlay, parse
from tasks.models import MODELS
from tasks.plugins import Entry

GRIDS = {file.stem: found for file in sorted(RECIPES.glob("*.toml")) if (found := read_recipe(file.stem, RECIPES)).axes}
EACH = 20  # examples of a client
SMALL: Flat = {"train.device": "cpu", "train.threads": 1, "train.epochs": 1, "train.batch-size": 8}


@dataclass(frozen=True)
class Shape:
    """Shape of an example as published, and number of classes."""

    inputs: tuple[int, ...]
    classes: int


SHAPES = {
    "cifar-10": Shape((3, 32, 32), 10),
    "cifar-100": Shape((3, 32, 32), 100),
}


@lru_cache
def random_images(size: int, channels: int, side: int) -> Tensor:
    drawn = np.random.default_rng(0).integers(256, size=(size, channels, side, side), dtype=np.uint8)
    return torch.from_numpy(drawn)


class StandIn(Task):
    """``size`` images of a data set's classes, evenly many of each, no larger than 32 x 32."""

    def __init__(self, name: str, size: int) -> None:
        shape = SHAPES[name]
        self.class_names = tuple(f"class {number}" for number in range(shape.classes))
        self.default_model, self.size = "linear", size
        self.input_shape = tuple(min(side, 32) for side in shape.inputs)

    def train_examples(self) -> Examples:
        return Examples(random_images(self.size, *self.input_shape[:2]), np.arange(self.size) % self.num_classes)

    def test_examples(self) -> Examples:
        return self.train_examples().take(np.arange(10))

    def prepare(self, features: Tensor) -> Tensor:
        return features.float() / 255

    def build_model(self, name: str, args: str) -> nn.Module:
        return MODELS.build(name, args, num_classes=self.num_classes, input_shape=self.input_shape)


def write_human_labels(folder: Path, size: int) -> None:
    """Write such files as CIFAR-N has, for a stand-in of ``size`` examples: every third label is wrong."""
    (folder / "cifar-n").mkdir()
    for name, classes, column in (("CIFAR-10", 10, "worse_label"), ("CIFAR-100", 100, "noisy_label")):
        clean = np.arange(size) % classes
        given = np.where(np.arange(size) % 3 == 0, (clean + 1) % classes, clean)
        torch.save({"clean_label": clean, column: given}, folder / f"cifar-n/{name}_human.pt")


def rows(axes: Mapping[str, Any]) -> list[list[str]]:
    """Choices of one option of each axis, in which every option comes up: as many as the longest axis has."""
    count = max(map(len, axes.values()))
    return [list(row) for row in zip(*(islice(cycle(options), count) for options in axes.values()), strict=True)]


def added(name: str) -> dict[str, list[str]]:
    """The options of each axis that a recipe does not have from its base; where there is none, the first."""
    base = read_toml(RECIPES / f"{name}.toml").get("base")
    inherited = GRIDS[base].axes if base else {}
    news = {
        axis: [option for option, changes in options.items() if inherited.get(axis, {}).get(option) != changes]
        for axis, options in GRIDS[name].axes.items()
    }
    return {axis: options or [next(iter(GRIDS[name].axes[axis]))] for axis, options in news.items()}


def stood_in(recipe: Recipe, row: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Flat:
    """The configuration of a recipe with a stand-in for its data, whose arguments are checked, and a linear model."""
    flat = overlay(DEFAULTS, *recipe.layers(row), SMALL, {"task.data-path": str(folder), "model.name": "linear"})
    task, size = str(flat["task.name"]), EACH * int(flat["federation.num-clients"])
    real = TASKS.find(task)
    if real.__module__ != __name__:  # else a stand-in of this test's row before
        bind(real, parse_args(str(flat["task.args"])), {"data_path": folder})
    monkeypatch.setitem(TASKS._entries, task, Entry(task, lambda: StandIn(task, size), "a stand-in"))
    if not (folder / "cifar-n").exists():
        write_human_labels(folder, size)
    smaller = {"partition.args": "min_size = 1"} if "min_size" in str(flat["partition.args"]) else {}
    return overlay(flat, {"task.args": ""}, smaller)


CONSTANTS = (
    *("num-server-rounds", "federation.num-clients", "federation.fraction-train", "model.name", "train.optimizer"),
    *("train.learning-rate", "train.momentum", "train.weight-decay", "train.epochs", "train.batch-size"),
)
PUBLISHED = {
    "fnbench-cifar10": (120, 100, 0.1, "resnet18", "sgd", 0.01, 0.9, 5e-4, 5, 64),
    "fnbench-cifar100": (120, 100, 0.1, "resnet34", "sgd", 0.01, 0.9, 5e-4, 5, 64),
    "fedcorr-cifar10": (1000, 100, 0.1, "resnet18", "sgd", 0.03, 0.5, 0.0, 5, 10),
    "fedcorr-cifar10@fedcorr": (5 * 100 + 500 + 450, 100, 0.1, "resnet18", "sgd", 0.03, 0.5, 0.0, 5, 10),
    "fedcorr-cifar100": (1000, 50, 0.1, "resnet34", "sgd", 0.01, 0.5, 0.0, 5, 10),
    "fedcorr-cifar100@fedcorr": (10 * 50 + 450 + 450, 50, 0.1, "resnet34", "sgd", 0.01, 0.5, 0.0, 5, 10),
    "anl-cifar10": (120, 1, 1.0, "cnn8", "sgd", 0.01, 0.9, 1e-4, 1, 128),
    "anl-cifar10@anl-ce": (120, 1, 1.0, "cnn8", "sgd", 0.01, 0.9, 0.0, 1, 128),
    "anl-cifar100": (200, 1, 1.0, "resnet34", "sgd", 0.1, 0.9, 1e-5, 1, 128),
    "anl-cifar100@anl-fl": (200, 1, 1.0, "resnet34", "sgd", 0.1, 0.9, 0.0, 1, 128),
    "apl-report-cifar10": (30, 1, 1.0, "apl-report-cnn", "adam", 1e-3, 0.9, 0.0, 1, 128),
}


@pytest.mark.parametrize("word", PUBLISHED)
def test_constants_are_the_papers(word: str) -> None:
    flat = overlay(DEFAULTS, *recipe_layers(word, RECIPES))
    assert tuple(flat[key] for key in CONSTANTS) == PUBLISHED[word]


@pytest.mark.parametrize("name", GRIDS)
def test_every_setting_fits_and_no_key_is_idle(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in rows(GRIDS[name].axes):
        flat = stood_in(GRIDS[name], row, tmp_path, monkeypatch)
        assert [issue.line for issue in validate(flat, trials=False).warnings] == [], row


@pytest.mark.parametrize("name", GRIDS)
def test_no_two_axes_set_the_same_key(name: str) -> None:
    """So that it is enough to try every option once."""
    keys = [set().union(*options.values()) for options in GRIDS[name].axes.values()]
    assert [first & second for first, second in combinations(keys, 2) if first & second] == []


@pytest.mark.parametrize("name", GRIDS)
def test_the_model_takes_the_published_inputs(name: str) -> None:
    flat = overlay(DEFAULTS, *GRIDS[name].layers([]))
    shape = SHAPES[str(flat["task.name"])]
    with torch.device("meta"):
        context = {"num_classes": shape.classes, "input_shape": shape.inputs}
        assert MODELS.build(str(flat["model.name"]), str(flat["model.args"]), **context)


@pytest.mark.parametrize("name", GRIDS)
def test_a_federation_with_each_setting_of_its_own_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in rows(added(name)):
        federation = Federation(parse(stood_in(GRIDS[name], row, tmp_path, monkeypatch)))
        before = {key: value.copy() for key, value in federation.arrays.items()}
        line = next(federation.rounds())
        assert line["quarantined"] == 0, row
        assert np.isfinite(line["loss"]), row
        assert any((federation.arrays[key] != value).any() for key, value in before.items()), row
