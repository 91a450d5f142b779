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
    """Shape of an example as published, number of classes, and whether each pixel has one."""

    inputs: tuple[int, ...]
    classes: int
    pixels: bool = False

    def small_model(self) -> Flat:
        """A model that trains at once."""
        return {"model.name": "unet", "model.args": "width = 8, depth = 1"} if self.pixels else {"model.name": "linear"}


SHAPES = {
    "ag-news": Shape((64,), 4),
    "animal-10n": Shape((3, 64, 64), 10),
    "cifar-10": Shape((3, 32, 32), 10),
    "cifar-100": Shape((3, 32, 32), 100),
    "clothing1m": Shape((3, 224, 224), 14),
    "isic-2017": Shape((3, 256, 256), 2, pixels=True),
    "mnist": Shape((1, 28, 28), 10),
    "webvision-mini": Shape((3, 224, 224), 50),
}


@lru_cache
def random_features(size: int, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(256, size=(size, *shape), dtype=np.uint8))


class StandIn(Task):
    """``size`` examples of a data set's classes, evenly many of each; images are no larger than 32 x 32."""

    def __init__(self, name: str, size: int) -> None:
        shape = SHAPES[name]
        self.class_names = tuple(f"class {number}" for number in range(shape.classes))
        self.default_model, self.size = "linear", size
        self.labels_pixels = shape.pixels  # type: ignore[misc]
        self.input_shape = tuple(min(side, 32) for side in shape.inputs) if len(shape.inputs) == 3 else shape.inputs

    def train_examples(self) -> Examples:
        labels = np.arange(self.size) % self.num_classes
        if self.labels_pixels:
            labels = np.zeros((self.size, *self.input_shape[1:]), np.int64)
            labels[:, 8:24, 8:24] = 1
        return Examples(random_features(self.size, self.input_shape), labels)

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
    flat = overlay(DEFAULTS, *recipe.layers(row), SMALL, {"task.data-path": str(folder)})
    task, size = str(flat["task.name"]), EACH * int(flat["federation.num-clients"])
    real = TASKS.find(task)
    if real.__module__ != __name__:  # else a stand-in of this test's row before
        bind(real, parse_args(str(flat["task.args"])), {"data_path": folder})
    monkeypatch.setitem(TASKS._entries, task, Entry(task, lambda: StandIn(task, size), "a stand-in"))
    if not (folder / "cifar-n").exists():
        write_human_labels(folder, size)
    smaller = {"partition.args": "min_size = 1"} if "min_size" in str(flat["partition.args"]) else {}
    return overlay(flat, {"task.args": ""}, SHAPES[task].small_model(), smaller)


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
    "anl-mnist": (50, 1, 1.0, "mnist-cnn", "sgd", 0.01, 0.9, 1e-3, 1, 128),
    "anl-webvision": (250, 1, 1.0, "resnet50", "sgd", 0.4, 0.9, 3e-5, 1, 512),
    "anl-isic2017": (100, 1, 1.0, "unet", "adam", 1e-3, 0.9, 5e-6, 1, 16),
    "fnbench-clothing1m": (40, 100, 0.05, "resnet50", "sgd", 0.01, 0.0, 5e-4, 5, 64),
    "fedcorr-clothing1m": (2 * 50 + 50 + 50, 500, 0.02, "resnet50", "sgd", 0.001, 0.5, 0.0, 5, 16),
    "fedcorr-clothing1m@fedcorr": (2 * 500 + 50 + 50, 500, 0.02, "resnet50", "sgd", 0.001, 0.5, 0.0, 5, 16),
    "apl-report-cifar10": (30, 1, 1.0, "apl-report-cnn", "adam", 1e-3, 0.9, 0.0, 1, 128),
}


@pytest.mark.parametrize("word", PUBLISHED)
def test_constants_are_the_papers(word: str) -> None:
    flat = overlay(DEFAULTS, *recipe_layers(word, RECIPES))
    assert tuple(flat[key] for key in CONSTANTS) == PUBLISHED[word]


PRESETS = {
    "anl-animal10n": "animal-10n",
    "anl-cifar10": "cifar-10",
    "anl-cifar100": "cifar-100",
    "anl-clothing1m": "clothing1m",
    "anl-isic2017": "",
    "anl-mnist": "mnist",
    "anl-webvision": "webvision",
    "apl-report-cifar10": "apl-report",
    "fedcorr-cifar10@fsanl": "cifar-10",
    "fedcorr-cifar100@fsanl": "cifar-100",
}


@pytest.mark.parametrize("word", PRESETS)
def test_losses_have_the_parameters_of_the_data_set(word: str) -> None:
    assert overlay(DEFAULTS, *recipe_layers(word, RECIPES))["loss.preset"] == PRESETS[word]


@pytest.mark.parametrize("name", GRIDS)
def test_every_setting_fits_and_no_key_is_idle(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in rows(GRIDS[name].axes):
        flat = stood_in(GRIDS[name], row, tmp_path, monkeypatch)
        found = validate(flat, trials=False).warnings
        assert [issue.line for issue in found if issue.key != "noise"] == [], row  # which may be strong


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
        context = {"num_classes": shape.classes, "input_shape": shape.inputs, "vocabulary": 95_814}
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
