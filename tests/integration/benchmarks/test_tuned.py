"""Tests of the tuned comparison: on what a rate is chosen, which one is, and what a small comparison gives."""

import math
from pathlib import Path

import pytest

from benchmarks.ledger import Ledger
from benchmarks.tuned import Case, Comparison, Outcome, accuracy_table, audit_table, chosen, compare
from tasks.client_data import validation_examples
from tasks.config import Flat
from tasks.protocol import Mode

COMMON: Flat = {
    "num-server-rounds": 1,
    "federation.num-clients": 4,
    "partition.name": "iid",
    "partition.args": "",
    "noise.name": "symmetric",
    "noise.rates-args": "max = 0.8",
    "task.name": "digits",
    "model.name": "linear",
    "loss.name": "ce",
    "train.epochs": 2,
    "train.device": "cpu",
    "train.threads": 1,
}


def outcome(accuracy: float) -> Outcome:
    return Outcome(accuracy, *[math.nan] * 9)


def test_a_rate_is_chosen_on_held_out_examples_and_all_of_them_train_the_model_that_is_tested() -> None:
    comparison = Comparison(COMMON, {"0-0.8": {}}, {"fedavg": {"strategy.aggregator": "mean"}}, (0.1,), audits=False)
    chosen_on, tested = (Case("0-0.8", "fedavg", 0.1, 1, part) for part in ("validation", "test"))

    assert [
        validation_examples(comparison.settings(case), Mode.SIMULATION) is None for case in (chosen_on, tested)
    ] == [
        False,
        True,
    ]
    accuracy = comparison.run(chosen_on).accuracy / 100
    assert accuracy * 144 == pytest.approx(
        round(accuracy * 144)
    )  # of the 144 that are held out, not of 360 in the test
    assert accuracy * 360 != pytest.approx(round(accuracy * 360))


def test_the_rate_is_chosen_on_held_out_examples_per_noise_and_method() -> None:
    runs = {
        Case("clean", "a", 0.1, 1): outcome(70),
        Case("clean", "a", 0.01, 1): outcome(80),
        Case("clean", "b", 0.1, 1): outcome(75),
        Case("noisy", "a", 0.1, 1): outcome(60),
        Case("noisy", "a", 0.01, 1): outcome(50),
        Case("noisy", "a", 0.01, 1, "test"): outcome(99),
    }

    assert chosen(runs) == {("clean", "a"): 0.01, ("clean", "b"): 0.1, ("noisy", "a"): 0.1}


def test_a_comparison_tunes_each_method_then_tests_it_once_per_seed(tmp_path: Path) -> None:
    methods: dict[str, Flat] = {"fedavg": {"strategy.aggregator": "mean"}}
    comparison = Comparison(COMMON, {"0-0.8": {}}, methods, (1e-6, 0.1))
    alone = Comparison(COMMON, {"0-0.8": {}}, methods, (0.1,))

    runs = compare(
        Ledger(tmp_path / "runs.csv", Case, Outcome), comparison, (["0-0.8"], ["fedavg"]), seeds=[1, 2], jobs=1
    )

    ledger = Ledger(tmp_path / "runs.csv", Case, Outcome)
    assert list(compare(ledger, alone, (["0-0.8"], ["fedavg"]), seeds=[1], jobs=1)) == [
        Case("0-0.8", "fedavg", 0.1, 1, "test")
    ]
    final = {case: run for case, run in runs.items() if case.part == "test"}
    assert [(case.rate, case.seed) for case in final] == [(0.1, 1), (0.1, 2)]
    for run in final.values():
        assert run.auc > run.auc_alone > 50
        assert 0 < run.recall <= 100
    assert "(0.1)" in accuracy_table(runs)
    assert "0-0.8" in audit_table(runs, alone=True)
