"""Comparison of a sweep's options against scipy, and what it says where there is too little to tell."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from server_app.sweep.comparison import compare
from server_app.sweep.database import RUNNING
from server_app.sweep.results import BETTER, WORSE, Family
from server_app.sweep.selection import ResultsError, parse_condition
from server_app.sweep.statistics import holm
from tests.sweep_cases import design_of, failed, pending, runs_of_values, synthetic_runs

RANDOM = np.random.default_rng(11)
METHODS, NOISES = ("fedavg", "winnow", "median"), ("clean", "symmetric")
DESIGN = design_of(METHODS, NOISES, seeds=4)
VALUES = {
    (method, noise): RANDOM.normal(0.7 + 0.1 * (method == "winnow") - 0.2 * (noise != "clean"), 0.01, 4)
    for method in METHODS
    for noise in NOISES
}
FOUND = compare(DESIGN, runs_of_values(DESIGN, VALUES))


def text(found):
    return " ".join((*found.findings, *found.notes)).replace("\u00a0", " ")


def over_all(one, other, values=VALUES):
    """The p over all settings as scipy has it."""
    differences = np.array([values[one, noise] - values[other, noise] for noise in NOISES])
    flips = stats.permutation_test((differences.ravel(),), np.mean, permutation_type="samples", n_resamples=10**4)
    return max(flips.pvalue, stats.ttest_1samp(differences.mean(0), 0).pvalue)


def test_a_cell_has_mean_deviation_interval_and_rank():
    score, values = FOUND.cells["median", ("clean",)], VALUES["median", "clean"]
    assert score.values == pytest.approx(dict(zip("1234", values, strict=True)))
    assert (score.mean, score.deviation) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert score.interval == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval())
    means = [VALUES[method, "clean"].mean() for method in METHODS]
    assert score.rank == 1 + sum(mean > values.mean() for mean in means)


def test_over_all_settings_a_seed_counts_once():
    score = FOUND.overall["winnow"]
    values = (VALUES["winnow", "clean"] + VALUES["winnow", "symmetric"]) / 2
    assert list(score.values.values()) == pytest.approx(list(values))
    assert (score.mean, score.deviation) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert (score.rank, score.mark) == (1.0, "best")


def test_against_the_best_all_pairs_are_corrected_for():
    pairs = list(combinations(METHODS, 2))
    adjusted = dict(zip(pairs, holm([over_all(*pair) for pair in pairs]), strict=True))
    for method, pair in (("fedavg", ("fedavg", "winnow")), ("median", ("winnow", "median"))):
        difference = FOUND.overall[method].against_best
        assert difference.adjusted == pytest.approx(adjusted[pair])
        assert (difference.reference, difference.pairs, difference.verdict) == ("winnow", 8, WORSE)
        assert difference.mean == pytest.approx(FOUND.overall[method].mean - FOUND.overall["winnow"].mean)
        by_seed = np.mean([VALUES[method, noise] - VALUES["winnow", noise] for noise in NOISES], axis=0)
        assert difference.interval == pytest.approx(stats.ttest_1samp(by_seed, 0).confidence_interval())
    assert FOUND.overall["winnow"].against_best is None


def test_against_the_baseline_its_own_comparisons_are_corrected_for():
    adjusted = holm([over_all("winnow", "fedavg"), over_all("median", "fedavg")])
    found = [FOUND.overall[method].against_baseline for method in ("winnow", "median")]
    assert [each.adjusted for each in found] == pytest.approx(adjusted)
    assert [each.verdict for each in found] == [BETTER, ""]
    assert FOUND.overall["fedavg"].against_baseline is None
    assert "Compared with fedavg, significantly better: winnow (+" in text(FOUND)


def test_in_a_setting_pairs_are_of_that_setting():
    differences = VALUES["winnow", "symmetric"] - VALUES["fedavg", "symmetric"]
    found = FOUND.cells["winnow", ("symmetric",)].against_baseline
    assert (found.pairs, found.p) == (4, 1 / 8)
    assert found.interval == pytest.approx(stats.ttest_1samp(differences, 0).confidence_interval())


def test_what_few_seeds_cannot_show_is_said_and_not_marked():
    assert FOUND.families.cells_best == Family(comparisons=6, pairs=4)
    assert {score.mark for score in FOUND.cells.values()} == {"best", ""}
    assert "With 4 seeds no difference in one setting can be significant: the smallest p of 4 pairs is 0.125" in text(
        FOUND
    )
    assert "8 pairs would do. Over all settings it can." in text(FOUND)


def test_with_enough_seeds_those_not_worse_are_marked():
    design = design_of(("a", "b", "c"), ("clean",), seeds=10)
    base = RANDOM.normal(0.7, 0.01, 10)
    noise = RANDOM.normal(0, 0.01, 10) - 0.001
    found = compare(
        design, runs_of_values(design, {("a", "clean"): base, ("b", "clean"): base + noise, ("c", "clean"): base - 0.1})
    )
    marks = {option: found.cells[option, ("clean",)].mark for option in "abc"}
    assert sorted(marks.values()) == ["", "best", "not-worse"]
    assert marks["c"] == ""
    assert found.cells["c", ("clean",)].against_baseline.verdict == WORSE
    assert "can be significant" not in text(found)


def test_lower_is_better_turns_ranks_and_verdicts_around():
    found = compare(DESIGN, runs_of_values(DESIGN, VALUES, "loss"), measure="loss")
    assert found.overall["winnow"].mark == ""
    assert found.overall["winnow"].against_baseline.verdict == WORSE
    assert found.overall["winnow"].rank == 3.0
    assert "(lower is better)" in text(found)


@pytest.mark.parametrize("seeds", [1, 2])
def test_nothing_is_better_without_enough_seeds(seeds):
    design = design_of(seeds=seeds)
    found = compare(design, synthetic_runs(design))
    verdicts = {
        score.against_baseline.verdict
        for score in (*found.cells.values(), *found.overall.values())
        if score.against_baseline
    }
    assert verdicts == {""}
    assert "significantly better" not in text(found)
    said = (
        "No difference was tested: that takes two seeds"
        if seeds == 1
        else "With 2 seeds no difference can be significant"
    )
    assert said in text(found)


def test_equal_values_are_not_different():
    found = compare(DESIGN, runs_of_values(DESIGN, {each: [0.5] * 4 for each in VALUES}))
    assert {found.overall[name].against_baseline.p for name in ("winnow", "median")} == {1.0}
    assert [found.overall[name].rank for name in METHODS] == [2.0, 2.0, 2.0]
    assert found.overall["median"].mark == "not-worse"
    assert found.agreement is None


def test_one_option_alone_is_not_the_best():
    found = compare(DESIGN, synthetic_runs(DESIGN), [parse_condition("method=winnow")])
    assert {score.mark for score in (*found.cells.values(), *found.overall.values())} == {""}
    assert (found.findings, found.stability) == ((), {})


def test_missing_runs_are_named_and_their_pairs_left_out():
    runs = runs_of_values(DESIGN, VALUES)
    lost = next(run for run in runs if run.point == {"method": "winnow", "noise": "clean", "seed": "3"})
    found = compare(DESIGN, [failed(run) if run is lost else run for run in runs])
    cell, overall = found.cells["winnow", ("clean",)], found.overall["winnow"]
    assert (cell.missing, list(cell.values), cell.against_baseline.pairs) == (("3",), ["1", "2", "4"], 3)
    assert (overall.missing, list(overall.values), overall.against_baseline.pairs) == (("3",), ["1", "2", "4"], 7)
    assert "1 of 24 runs have no value" in text(found)
    assert "winnow, clean, seed 3 failed 2 times: DivergedError" in text(found)


def test_runs_to_come_are_counted_and_those_that_ended_are_named():
    runs = runs_of_values(DESIGN, VALUES)
    began = [*map(failed, runs[:6]), *map(pending, runs[6:9]), replace(runs[9], state=RUNNING, series={}), *runs[10:]]
    said = text(compare(DESIGN, began))
    assert "10 of 24 runs have no value" in said
    assert said.count("DivergedError") == 5
    assert "; and 1 more; 1 running; 3 to come." in said


def test_an_option_that_was_not_run_everywhere_has_no_mean_over_all():
    runs = [
        run
        for run in runs_of_values(DESIGN, VALUES)
        if (run.point["method"], run.point["noise"]) != ("winnow", "clean")
    ]
    found = compare(DESIGN, runs)
    assert ("winnow", ("clean",)) not in found.cells
    assert found.overall["winnow"].mean is None
    assert found.overall["winnow"].missing == ()
    assert {found.overall["fedavg"].rank, found.overall["median"].rank} == {1.0, 2.0}
    assert "without mean over all settings: winnow (without clean)" in text(found)
    assert set(found.stability) == {"fedavg", "median"}


def test_conditions_measure_and_baseline_change_the_table():
    runs = synthetic_runs(DESIGN)
    found = compare(DESIGN, runs, [parse_condition("method!=fedavg"), parse_condition("noise=clean")])
    assert (found.options, found.settings, found.baseline) == (("winnow", "median"), (("clean",),), "")
    assert "The baseline fedavg is not among the runs shown." in found.notes
    found = compare(DESIGN, runs, baseline="winnow", measure="loss", summary="best")
    assert (found.baseline, found.lower_is_better) == ("winnow", True)
    assert found.overall["fedavg"].against_baseline.reference == "winnow"
    with pytest.raises(ResultsError, match="--baseline: no method 'winow'; did you mean 'winnow'"):
        compare(DESIGN, runs, baseline="winow")


def test_settings_of_several_axes_are_in_the_order_of_the_design():
    axes = {"noise": ("symmetric", "clean"), "method": ("a", "b"), "attack": ("none", "flip"), "seed": ("1", "2")}
    design = replace(DESIGN, axes=axes, baseline="")
    options = [
        (noise, method, attack) for attack in ("flip", "none") for noise in axes["noise"] for method in ("b", "a")
    ]
    found = compare(design, runs_of_values(design, {each: [0.5, 0.6] for each in options}))
    assert found.options == ("a", "b")
    assert found.settings[:3] == (("symmetric", "none"), ("symmetric", "flip"), ("clean", "none"))
    assert found.title(("clean", "flip")) == "noise clean, attack flip"


def test_runs_of_several_versions_of_the_code_are_said():
    runs = synthetic_runs(DESIGN)
    assert "versions of the code" not in text(compare(DESIGN, runs))
    runs[:4] = [replace(run, versions={**run.versions, "git": "abc"}) for run in runs[:4]]
    assert "2 versions of the code: of unknown commit (20 runs); git abc (4 runs)" in text(compare(DESIGN, runs))
