"""Plan of a sweep: which runs a file stands for, in which order, and with which settings."""

from pathlib import Path

import pytest

from server_app.sweep.file import SweepFileError, read_sweep
from server_app.sweep.plan import SweepPlan
from tasks.config import DEFAULTS, ConfigError, parse

GRID = """
[common]
train.epochs = 2
[axes.method]
fedavg = { loss.name = "ce", strategy.aggregator = "mean" }
gce = { loss.name = "gce", loss.args = "q = 0.5" }
[axes.noise]
clean = { noise.name = "none" }
many = { noise.name = "symmetric", noise.rates-args = "max = 0.8" }
[axes]
seed = [3, 1]
"""
TUNED = GRID + '[tune]\nseeds = [7, 8]\n"train.learning-rate" = [0.1, 0.01]\n"train.momentum" = [0.5]\n'


def plan_of(folder: Path, text: str) -> SweepPlan:
    file = folder / "trial.toml"
    file.write_text(text)
    return SweepPlan(read_sweep(file), file, folder)


def test_a_grid_has_all_combinations_one_repetition_after_the_other(tmp_path: Path) -> None:
    runs = plan_of(tmp_path, GRID).final_runs()
    assert [run.name for run in runs] == [
        f"{method}, {noise}, seed {seed}"
        for seed in (3, 1)
        for method in ("fedavg", "gce")
        for noise in ("clean", "many")
    ]
    settings = parse(runs[3].flat)
    assert (settings.seed, settings.train.epochs, settings.loss.name, settings.loss.args) == (3, 2, "gce", "q = 0.5")
    assert settings.noise.rates_args == "max = 0.8"
    assert not settings.audit.enabled
    assert parse(runs[0].flat).strategy.aggregator == "mean"


def test_what_is_excluded_is_left_out_and_counted(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, GRID + '[[exclude]]\nmethod = "gce"\nnoise = ["clean"]\n')
    assert (len(plan.points), plan.excluded) == (6, 2)
    assert not [point for point in plan.points if (point["method"], point["noise"]) == ("gce", "clean")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[exclude]]\nmethod = ["fedavg", "gce"]\n', "exclude leaves no run"),
        ('[[exclude]]\nmethod = "gce"\n[[exclude]]\nmethod = "fedavg"\n', "exclude leaves no run"),
    ],
)
def test_a_plan_without_runs_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(SweepFileError, match=expected):
        plan_of(tmp_path, GRID + text)


def test_an_option_without_runs_to_tune_by_is_refused(tmp_path: Path) -> None:
    text = '[[exclude]]\nmethod = "gce"\nnoise = "clean"\n' + TUNED + 'only = { noise = "clean" }\n'
    with pytest.raises(SweepFileError, match=r"tune\.only: no run of gce is left to tune by"):
        plan_of(tmp_path, text)


def test_all_options_are_tuned_with_the_same_values_and_seeds(tmp_path: Path) -> None:
    runs = plan_of(tmp_path, TUNED).tuning_runs()
    tried: dict[str, list[tuple[str, ...]]] = {}
    for run in runs:
        point = dict(run.point)
        tried.setdefault(point.pop("method"), []).append(tuple(point.values()))
        assert (str(run.flat["seed"]), str(run.flat["train.learning-rate"])) == (
            point["seed"],
            point["train.learning-rate"],
        )
        assert run.flat["train.momentum"] == 0.5
    assert tried["fedavg"] == tried["gce"]
    assert len(tried["gce"]) == 2 * 2 * 2


def test_what_was_chosen_is_laid_over_the_options(tmp_path: Path) -> None:
    chosen = {("fedavg",): {"train.learning-rate": 0.5}, ("gce", "many"): {"train.learning-rate": 0.25}}
    rates = {run.name: run.flat["train.learning-rate"] for run in plan_of(tmp_path, TUNED).final_runs(chosen)}
    assert {rates[f"fedavg, {noise}, seed 1"] for noise in ("clean", "many")} == {0.5}
    assert rates["gce, many, seed 3"] == 0.25
    assert rates["gce, clean, seed 3"] == DEFAULTS["train.learning-rate"]


def test_only_a_run_whose_file_asks_for_it_writes_checkpoints(tmp_path: Path) -> None:
    assert not plan_of(tmp_path, GRID).final_runs()[0].checkpoints
    assert (
        plan_of(tmp_path, "[common]\nrun.checkpoint-every = 1\n" + GRID.replace("[common]\n", ""))
        .final_runs()[0]
        .checkpoints
    )


def test_paths_begin_in_the_working_directory(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, '[common]\ntask.data-path = "here"\n')
    assert plan.final_runs()[0].flat["task.data-path"] == str(tmp_path / "here")
    with pytest.raises((SweepFileError, ConfigError)):
        plan_of(tmp_path, '[common]\ntask.data-path = "a\\u0000b"\n')
