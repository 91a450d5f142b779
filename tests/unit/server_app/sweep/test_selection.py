"""Selection of a sweep's runs and the one value of each, and what is said where there is none."""

from dataclasses import replace
from statistics import fmean

import pytest

from server_app.sweep.database import EARLIER, STOPPED, TUNING
from server_app.sweep.selection import (
    ResultsError,
    check_measure,
    check_summary,
    parse_condition,
    run_value,
    runs_of_design,
    select,
)
from tests.sweep_cases import design_of, failed, pending, run_of, synthetic_runs

DESIGN = design_of(seeds=2)
RUNS = synthetic_runs(DESIGN)
LONG = {"accuracy": tuple((number, 0.1 * number) for number in range(13)), "train_loss": ((13, 1.0),)}


def chosen(*words, runs=RUNS):
    return {(run.point["method"], run.point["noise"], run.point["seed"]) for run in select_words(words, runs)}


def select_words(words, runs=RUNS):
    return select(runs, DESIGN, [parse_condition(word) for word in words])


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ((), 18),
        (("method=winnow,fedavg",), 12),
        (("noise!=clean",), 12),
        (("noise!=clean,symmetric", "seed=2"), 3),
        (("noise.name=none",), 6),  # a setting
        (("train.learning-rate=0.10",), 18),  # a default, as a number
        (("train.augment=true",), 18),
    ],
)
def test_conditions_choose_runs(words, count):
    assert len(select_words(words)) == count


def test_all_conditions_must_hold():
    assert chosen("method=winnow", "noise!=clean", "seed=1") == {
        ("winnow", "symmetric", "1"),
        ("winnow", "asymmetric", "1"),
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nois=clean",), "unknown axis or setting 'nois'; did you mean 'noise'? axes: method, noise, seed"),
        (("train.learnin-rate=1",), "did you mean 'train.learning-rate'?"),
        (("method=winow",), "no run has method = 'winow'; did you mean 'winnow'?"),
        (("method=winnow", "method=fedavg"), "no run of the sweep matches --where method=winnow method=fedavg"),
        (("runs/digits",), "--where runs/digits: expected AXIS=OPTION"),
        (("=clean",), "expected AXIS=OPTION"),
    ],
)
def test_a_condition_that_fits_nothing_is_explained(words, said):
    with pytest.raises(ResultsError) as error:
        select_words(words)
    assert said in str(error.value)


def test_runs_of_earlier_designs_and_tuning_are_left_out():
    others = [
        replace(RUNS[0], key="a", purpose=TUNING),
        replace(RUNS[0], key="b", purpose=EARLIER),
        replace(RUNS[0], key="c", point={**RUNS[0].point, "noise": "open-set"}),
        replace(RUNS[0], key="d", point={"method": "fedavg", "seed": "1"}),
    ]
    assert runs_of_design([*others, *RUNS], DESIGN) == RUNS


def test_the_last_ten_are_evaluated_rounds_after_training_began():
    run = run_of(0, {"seed": "1"}, LONG)
    assert run_value(run, "accuracy", "last-ten") == (pytest.approx(fmean(0.1 * n for n in range(3, 13))), "")
    assert run_value(run, "accuracy", "last")[0] == pytest.approx(1.2)
    few = run_of(0, {"seed": "1"}, {"accuracy": ((0, 0.1), (4, 0.5), (8, 0.7))})
    assert run_value(few, "accuracy", "last-ten")[0] == pytest.approx(0.6)


def test_best_is_the_test_value_of_the_round_that_is_best_on_validation():
    series = {"accuracy": ((1, 0.9), (2, 0.5), (3, 0.6)), "validation_accuracy": ((1, 0.4), (2, 0.8), (3, 0.7))}
    run = run_of(0, {"seed": "1"}, series)
    assert run_value(run, "accuracy", "best") == (0.5, "")
    check_summary([run], "best")
    on_test_data = replace(run, series={"accuracy": series["accuracy"]})
    for without in (on_test_data, replace(run, best_round=None)):
        check_summary([without], "last")
        with pytest.raises(ResultsError, match=r"1 finished run has none \(seed 1\): use last or last-ten"):
            check_summary([without], "best")


def test_a_measure_that_broke_off_has_no_value():
    series = {"accuracy": ((1, 0.5), (2, 0.1)), "loss": ((1, 2.0),)}  # the loss of round 2 was not finite
    run = run_of(0, {}, series)
    for summary in ("last", "last-ten"):
        value, why = run_value(run, "loss", summary)
        assert value is None
        assert why == "has no loss in round 2: it was not finite, or not measured"
    assert run_value(run_of(0, {}, {}), "accuracy", "last")[1].startswith("has no accuracy after training began")


def test_an_unknown_measure_is_refused():
    with pytest.raises(ResultsError, match=r"'acuracy'; did you mean 'accuracy'\? choices: accuracy, loss"):
        check_measure(RUNS, "acuracy")
    check_measure([pending(RUNS[0])], "acuracy")  # nobody knows yet


def test_an_unfinished_run_says_why():
    assert run_value(failed(RUNS[0], "OSError: gone\nTraceback"), "accuracy", "last") == (
        None,
        "failed 2 times: OSError: gone",
    )
    assert run_value(pending(RUNS[0]), "accuracy", "last")[1] == "has not started"
    assert run_value(replace(RUNS[0], state=STOPPED), "accuracy", "last")[1] == "was stopped"
