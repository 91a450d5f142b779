"""Recipes that offer settings and are laid over others: ``recipe@setting,setting``."""

from pathlib import Path

import pytest

from server_app.cli import main
from server_app.cli.config import CommandError, make_plan
from server_app.cli.recipes import read_recipe, recipe_layers
from tasks.config import overlay
from tests.conftest import ROOT

GRID = """# A grid. More words.
seed = 1
train.epochs = 5

[settings.noise]
"rate-0.4" = { noise.name = "symmetric", noise.rates-args = "max = 0.4" }
clean = { noise.name = "none" }

[settings.method]
fedavg = {}
other = { loss.name = "ce", train.epochs = 2 }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "grid.toml").write_text(GRID)
    return tmp_path


def chosen(word: str, folder: Path) -> dict[str, object]:
    return dict(overlay(*recipe_layers(word, folder)))


def test_the_first_option_of_an_axis_holds_until_another_is_chosen(folder: Path) -> None:
    base = {"seed": 1, "train.epochs": 5}
    noisy = {"noise.name": "symmetric", "noise.rates-args": "max = 0.4"}
    assert chosen("grid.toml", folder) == base | noisy
    assert chosen("grid.toml@other", folder) == base | noisy | {"loss.name": "ce", "train.epochs": 2}
    assert chosen("grid.toml@fedavg,clean", folder) == base | {"noise.name": "none"}


def test_words_of_the_command_line_win_over_settings(folder: Path) -> None:
    plan = make_plan(["grid.toml@other", "train.epochs=3", "noise.rates-args=min = 0.1"], str(ROOT), folder)
    assert plan.flat["train.epochs"] == 3
    assert plan.flat["noise.rates-args"] == "max = 0.4, min = 0.1"


def test_a_file_with_an_at_in_its_name_is_a_file(folder: Path) -> None:
    (folder / "a@clean").write_text("seed = 7")
    assert chosen("a@clean", folder) == {"seed": 7}


def test_a_recipe_is_laid_over_its_base_option_by_option(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/next.toml").write_text(
        'base = "../grid.toml"\nseed = 2\n[settings.noise]\n"rate-0.4" = false\nhuman = { noise.name = "human" }\n'
        "[settings.method]\nother = { train.epochs = 9 }\n"
    )
    recipe = read_recipe("sub/next.toml", folder)
    assert {axis: list(options) for axis, options in recipe.axes.items()} == {
        "noise": ["clean", "human"],
        "method": ["fedavg", "other"],
    }
    assert chosen("sub/next.toml@human,other", folder) == {"seed": 2, "train.epochs": 9, "noise.name": "human"}
    (folder / "last.toml").write_text('base = "sub/next.toml"\n[settings]\nnoise = false\n')
    assert list(read_recipe("last.toml", folder).axes) == ["method"]


@pytest.mark.parametrize(
    ("text", "word", "message"),
    [
        ("", "grid.toml@claen", "recipe 'grid.toml' has no setting 'claen'; did you mean 'clean'"),
        ("", "grid.toml@", "has no setting ''"),
        ("", "demo@clean", "recipe 'demo' has no setting 'clean'; it offers none"),
        ("", "gird@clean", "no recipe 'gird'"),
        ("", "grid.toml@clean,rate-0.4", "clean and rate-0.4 are both noise of 'grid.toml': choose one"),
        ('base = "own.toml"', "own.toml", "own.toml is based on itself"),
        ('base = "nowhere"', "own.toml", "no recipe 'nowhere'"),
        ("base = 3", "own.toml", "base = 3: the name of a recipe expected"),
        ("settings = 3", "own.toml", "settings = 3: a table expected"),
        ("[settings]\nnoise = true", "own.toml", "settings.noise = True: a table expected"),
        ("[settings.noise]\nnone = 1", "own.toml", "settings.noise.none = 1: a table expected"),
        ("[settings.noise]\nnone = false", "own.toml", "settings.noise has no option left; .* write noise = false"),
        ("[settings.a]\nx = {}\n[settings.b]\nx = {}", "own.toml", "x: the name of two settings"),
    ],
)
def test_what_cannot_be_chosen_or_read_is_said(text: str, word: str, message: str, folder: Path) -> None:
    (folder / "own.toml").write_text(text)
    with pytest.raises(CommandError, match=message):
        recipe_layers(word, folder)


def test_recipes_are_listed_with_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "recipe"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert (
        "fedcorr-digits FedCorr on data that comes with scikit-learn: 20 clients, up to 80 % wrong labels fed" in listed
    )
    assert "partition: iid, p-0.7-alpha-10, p-0.7-alpha-1, p-0.3-alpha-10; method: fedavg, fedprox," in listed
