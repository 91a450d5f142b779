"""The recipes without settings to choose from: that each could start, and that those of a paper are the paper's."""

from pathlib import Path

import pytest

from server_app.cli.config import flatten, read_toml
from server_app.cli.recipes import read_recipe
from server_app.validation.config import check_variants
from tasks.config import DEFAULTS, Flat, to_flat
from tasks.settings import Settings
from tests.conftest import ROOT
from tests.issues import warning_lines

FOLDER = ROOT / "server_app/recipes"
RECIPES = [path for path in sorted(FOLDER.glob("*.toml")) if not read_recipe(path.stem, FOLDER).axes]
CORRECTING = ["masked-optim-digits", "fedelc-digits", "fednoro-digits"]


def recipe(name: str) -> Flat:
    """The configuration of a recipe, on a machine without a GPU."""
    (path,) = (path for path in RECIPES if path.stem == name)
    return {**DEFAULTS, **flatten(read_toml(path)), "train.device": "cpu"}


def settings_of(name: str) -> Settings:
    (settings,) = check_variants(recipe(name)).values()
    return settings


@pytest.mark.parametrize("name", [path.stem for path in RECIPES])
def test_every_recipe_could_start_and_has_no_idle_key(name: str, request: pytest.FixtureRequest):
    if recipe(name)["task.name"] == "cifar-10":
        request.getfixturevalue("data_root")
    assert warning_lines(recipe(name)) == []


def test_masked_optimization_on_cifar10_follows_the_published_protocol(data_root: Path):
    chosen = to_flat(settings_of("cifar10-masked-optim"))
    published = {
        "num-server-rounds": 120,
        "federation.num-clients": 100,
        "federation.fraction-train": 0.1,
        "model.name": "resnet18",
        "noise.name": "symmetric",
        "noise.rates": "linear",
        "noise.rates-args": "max = 0.4",
        "strategy.args": "warmup_rounds = 30",
        "strategy.aggregator": "geometric-median",
        "train.optimizer": "sgd",
        "train.learning-rate": 0.01,
        "train.momentum": 0.9,
        "train.weight-decay": 5e-4,
        "train.schedule": "constant",
        "train.clip-norm": 0.0,
        "train.epochs": 5,
        "train.batch-size": 64,
        "train.drop-last": True,
    }
    assert {key: chosen[key] for key in published} == published
    fedavg = to_flat(settings_of("cifar10-masked-optim-fedavg"))
    different = {key for key in chosen if chosen[key] != fedavg[key]}
    assert {key.split(".", maxsplit=1)[0] for key in different} == {"loss", "method", "strategy"}


@pytest.mark.parametrize("name", CORRECTING)
def test_the_digits_recipes_share_clients_labels_and_training(name: str):
    first, other = to_flat(settings_of(CORRECTING[0])), to_flat(settings_of(name))
    assert {key.split(".", maxsplit=1)[0] for key in first if first[key] != other[key]} <= {"method", "strategy"}
