"""Sweep file: what it may say, and that all that is wrong with it is said at once, each with its place."""

from pathlib import Path

import pytest

from server_app.sweep.file import SweepFile, SweepFileError, TuneTable, read_sweep

WHOLE = """
name = "trial"
note = "why"
tags = ["a"]
baseline = "fedavg"
measure = "macro-f1"
summary = "last"
[common]
num-server-rounds = 3
train.epochs = 2
[axes.method]
fedavg = { loss.name = "ce", strategy.aggregator = "mean" }
winnow = {}
recipe = "masked-optim-digits"
[axes.noise]
clean = { noise.name = "none" }
[axes]
seed = [1, 2]
train.learning-rate = [0.1, 0.01]
"loss.name" = { gentle = "gce" }
[[exclude]]
method = "fedavg"
"train.learning-rate" = [0.1]
[[variants]]
name = "median"
settings = { strategy.aggregator = "median" }
[tune]
seeds = [7]
choose = "worst"
only = { method = ["fedavg", "winnow", "recipe", "median"], noise = "clean" }
common = { num-server-rounds = 1 }
"train.momentum" = [0.5, 0.9]
"""


def read(folder: Path, text: str) -> SweepFile:
    file = folder / "trial.toml"
    file.write_text(text)
    return read_sweep(file)


def test_everything_that_a_file_can_say(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE)
    recipe = found.axes["method"].pop("recipe")  # type: ignore[attr-defined]
    assert recipe["method.name"] == "masked-optim"
    assert recipe["strategy.args"] == "warmup_rounds = 5"
    assert found == SweepFile(
        name="trial",
        axes={
            "method": {
                "fedavg": {"loss.name": "ce", "strategy.aggregator": "mean"},
                "winnow": {},
                "median": {"strategy.aggregator": "median"},
            },
            "noise": {"clean": {"noise.name": "none"}},
            "train.learning-rate": {"0.1": {"train.learning-rate": 0.1}, "0.01": {"train.learning-rate": 0.01}},
            "loss.name": {"gentle": {"loss.name": "gce"}},
            "seed": {"1": {"seed": 1}, "2": {"seed": 2}},
        },
        compared="method",
        layers=({"num-server-rounds": 3, "train.epochs": 2},),
        exclude=({"method": ("fedavg",), "train.learning-rate": ("0.1",)},),
        tune=TuneTable(
            {"train.momentum": (0.5, 0.9)},
            (7,),
            "worst",
            {"method": ("fedavg", "winnow", "recipe", "median"), "noise": ("clean",)},
            {"num-server-rounds": 1},
        ),
        baseline="fedavg",
        measure="macro-f1",
        summary="last",
        note="why",
        tags=("a",),
    )


def test_a_base_gives_settings_options_and_variants(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        'train.epochs = 4\nvariants = """\na = { loss.name = "ce" }\nb = {}\n"""\n'
        "[settings.noise]\nfew = { noise.rates-args = 'max = 0.1' }\nmany = { noise.rates-args = 'max = 0.9' }\n"
        "[settings.size]\nsmall = { federation.num-clients = 2 }\nlarge = { federation.num-clients = 9 }\n"
    )
    found = read(tmp_path, 'base = "own.toml@large"\n[axes]\nnoise = ["many", "few"]\n')
    assert found.axes == {
        "variant": {"a": {"loss.name": "ce"}, "b": {}},
        "noise": {"many": {"noise.rates-args": "max = 0.9"}, "few": {"noise.rates-args": "max = 0.1"}},
        "seed": {"1": {"seed": 1}},
    }
    assert found.compared == "variant"
    assert {"federation.num-clients": 9} in found.layers
    assert {"federation.num-clients": 2} not in found.layers


def test_a_file_that_compares_nothing_has_one_option(tmp_path: Path) -> None:
    found = read(tmp_path, "[axes]\nseed = [4, 5]\n")
    assert (found.compared, found.axes) == (
        "variant",
        {"variant": {"trial": {}}, "seed": {"4": {"seed": 4}, "5": {"seed": 5}}},
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sumary = 'last'", "sumary: unknown key; did you mean 'summary'?"),
        ("summary = 'lst'", "summary: unknown 'lst'; did you mean 'last'?"),
        ("baseline = 'x'\n[axes]\n'loss.name' = ['ce']", "baseline: unknown 'x'"),
        ("compare = 'noise'\n[axes]\n'loss.name' = ['ce']", "compare: there is no axis 'noise' to compare"),
        ("name = 'a/b'", "name: 'a/b': up to 100 letters"),
        ("[common]\ntrain.epoch = 1", "common: unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("[common]\ntrain.epochs = 0", "common: train.epochs = 0: must be at least 1"),
        ("[common]\nrun.output-dir = 'x'", "common: run.output-dir cannot be set here"),
        ("[axes.method]\na = { loss.nam = 'ce' }", "axes.method.a: unknown key 'loss.nam'"),
        ("[axes.method]\na = 'no-recipe'", "axes.method.a: no recipe 'no-recipe'"),
        ("[axes.method]\na = 3", "axes.method.a: a table of settings expected"),
        ("[axes.method]\na = { seed = 3 }", "seed: options cannot set it"),
        ("[common]\nseed = 3\n[axes]\nseed = [1]", "common.seed: there is an axis of this name"),
        ("[axes]\nseed = []", "axes.seed: has no option"),
        ("[axes.method]", "axes.method: has no option"),
        ("[axes]\nseed = [1, 1]", "axes.seed: the option 1 stands there twice"),
        ("[axes]\nseed = [-1]", "axes.seed = -1: seed = -1: must be at least 0"),
        ("[axes]\nlearning = [1]", "axes.learning: no setting is called 'learning'"),
        ("[axes]\nseed = 3", "axes.seed: a list of values, or a table of options, expected, got 3"),
        (
            "[[exclude]]\nmethd = 'a'\n[axes.method]\na = {}",
            "exclude[1]: there is no axis 'methd'; did you mean 'method'?",
        ),
        ("[[exclude]]\nmethod = ['b']\n[axes.method]\na = {}", "exclude[1]: the axis method has no option 'b'"),
        ("[[variants]]\nsettings = {}", "variants[1]: expected  name"),
        ("[[variants]]\nname = 'a'\n[axes.method]\na = {}", "variants[1]: the name 'a' is given twice"),
        ("[tune]\nseeds = [9]", "tune: names nothing to tune"),
        ("[tune]\nseeds = [1]\n'train.epochs' = [1]", "tune.seeds: 1 also compared"),
        ("[tune]\n'train.epochs' = [1]", "tune.seeds: a list of whole numbers expected"),
        ("[tune]\nseeds = [9]\n'train.epochs' = [1, 0]", "tune.train.epochs: train.epochs = 0: must be at least 1"),
        ("[tune]\nseeds = [9]\n'train.epochs' = 2", "tune.train.epochs: a list of values expected, got 2"),
        ("[tune]\nseeds = [9]\nchoose = 'best'\n'train.epochs' = [2]", "tune.choose: unknown 'best'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(SweepFileError) as error:
        read(tmp_path, text)
    assert any(problem.startswith(expected) for problem in error.value.problems), error.value.problems


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(SweepFileError, match=r"5 errors in .*trial\.toml:\n  - "):
        read(tmp_path, "a = 1\nsummary = 'x'\n[common]\nb = 1\n[axes]\nseed = []\n[[exclude]]\nc = 1\n")
