"""Tuning: chosen on validation data alone, by the mean or the worst over settings, at equal budgets."""

from dataclasses import replace
from pathlib import Path

import pytest

from server_app.sweep.database import COMPLETED, FAILED, SweepError, SweepRun
from server_app.sweep.plan import SweepPlan
from server_app.sweep.tuning import chosen_settings, validation_score
from server_app.sweep.tuning_table import tuning_note

FILE = """
summary = "{summary}"
measure = "{measure}"
[axes.method]
a = {{ loss.name = "ce" }}
b = {{}}
[axes.noise]
clean = {{ noise.name = "none" }}
many = {{}}
[tune]
seeds = [7, 8]
choose = "{choose}"
"train.learning-rate" = [0.1, 0.2]
"""
SCORES = {  # of a: the larger rate has the higher mean, the smaller one the better worst case
    ("a", "clean", "0.1"): (0.6, 0.6),
    ("a", "many", "0.1"): (0.5, 0.5),
    ("a", "clean", "0.2"): (0.8, 1.0),
    ("a", "many", "0.2"): (0.4, 0.4),
    ("b", "clean", "0.1"): (0.5, 0.7),
    ("b", "many", "0.1"): (0.5, 0.5),
    ("b", "clean", "0.2"): (0.5, 0.6),
    ("b", "many", "0.2"): (0.5, 0.5),
}


def plan_of(folder: Path, choose: str = "mean", summary: str = "last", measure: str = "accuracy") -> SweepPlan:
    file = folder / "trial.toml"
    file.write_text(FILE.format(choose=choose, summary=summary, measure=measure))
    return SweepPlan.read(file, folder)


def played(plan: SweepPlan, name: str = "validation_accuracy", sign: int = 1) -> list[SweepRun]:
    """Finished runs with these scores; the accuracy on test data says the opposite."""
    runs = []
    for place, run in enumerate(plan.tuning_runs()):
        point = run.point
        value = SCORES[point["method"], point["noise"], point["train.learning-rate"]][int(point["seed"]) - 7]
        series = {
            name: ((1, 0.0), (2, sign * value)),
            "accuracy": ((1, 0.0), (2, 1 - value)),
            "seconds": ((1, 1.0), (2, 1.0)),
        }
        runs.append(SweepRun(str(place), place, point, {}, "tuning", COMPLETED, series=series))
    return runs


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        ("mean", {("a",): 0.2, ("b",): 0.1}),
        ("worst", {("a",): 0.1, ("b",): 0.1}),
        ("each", {("a", "clean"): 0.2, ("a", "many"): 0.1, ("b", "clean"): 0.1, ("b", "many"): 0.1}),
    ],
)
def test_the_best_on_validation_data_is_chosen(
    tmp_path: Path, choose: str, expected: dict[tuple[str, ...], float]
) -> None:
    plan = plan_of(tmp_path, choose)
    chosen, record = chosen_settings(plan, played(plan))
    assert chosen == {group: {"train.learning-rate": rate} for group, rate in expected.items()}
    assert record["budget"] == {"a": 8, "b": 8}
    assert record["measure"] == "validation_accuracy"
    assert "8 runs for each method" in tuning_note(replace(plan.design(), tuning=record))


def test_where_lower_is_better_the_lowest_is_chosen(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, measure="loss")
    chosen, _ = chosen_settings(plan, played(plan, "validation_loss", -1))
    assert chosen["a",] == {"train.learning-rate": 0.2}


def test_values_with_which_a_run_failed_are_not_chosen(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    runs = [
        SweepRun(run.key, run.place, run.point, {}, "tuning", FAILED)
        if (run.point["method"], run.point["train.learning-rate"], run.point["seed"]) == ("a", "0.2", "8")
        else run
        for run in played(plan)
    ]
    assert chosen_settings(plan, runs)[0]["a",] == {"train.learning-rate": 0.1}
    lost = [
        SweepRun(run.key, run.place, run.point, {}, "tuning", FAILED) if run.point["method"] == "b" else run
        for run in runs
    ]
    with pytest.raises(SweepError, match="no values can be chosen for b"):
        chosen_settings(plan, lost)


def test_a_run_is_summed_up_as_the_comparison_does_it() -> None:
    points = tuple((number, number / 100) for number in range(21))
    series = {"validation_accuracy": points, "accuracy": points}
    run = SweepRun("k", 0, {}, {}, state=COMPLETED, best_round=7, series=series)
    assert validation_score(run, "accuracy", "last") == 0.2
    assert validation_score(run, "accuracy", "last-ten") == pytest.approx(0.155)
    assert validation_score(run, "accuracy", "best") == 0.07
    assert validation_score(run, "macro-f1", "last") is None


def test_a_run_that_diverged_at_its_end_is_no_candidate() -> None:
    series = {"validation_loss": ((1, 0.1),), "accuracy": ((1, 1.0), (2, 1.0))}
    run = SweepRun("k", 0, {}, {}, state=COMPLETED, series=series)
    assert validation_score(run, "loss", "last") is None
