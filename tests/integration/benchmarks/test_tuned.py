"""Tests of the tuned comparison: what is held out, which rate is chosen, and what a small comparison gives."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.held_out import HeldOut
from benchmarks.ledger import Ledger
from benchmarks.tuned import Case, Comparison, Outcome, accuracy_table, audit_table, chosen, compare
from tasks.config import Flat

COMMON: Flat = {
    "num-server-rounds": 1,
    "federation.num-clients": 4,
    "partition.name": "iid",
    "partition.args": "",
    "noise.name": "symmetric",
    "noise.rates-args": "max = 0.8",
    "task.name": "benchmarks.held_out:HeldOut",
    "task.args": 'task = "digits"',
    "model.name": "linear",
    "loss.name": "ce",
    "train.epochs": 2,
    "train.device": "cpu",
    "train.threads": 1,
}
PARTS: dict[str, Flat] = {part: {"task.args": f'part = "{part}"'} for part in ("validation", "test")}


def outcome(accuracy: float) -> Outcome:
    return Outcome(accuracy, *[math.nan] * 9)


def test_the_held_out_examples_are_training_examples_that_nobody_shares(tmp_path: Path) -> None:
    validation, test = (HeldOut(tmp_path, "digits", part=part, share=0.25) for part in ("validation", "test"))
    everything, shared, held_out = test.train_examples(), validation.train_examples(), validation.test_examples()

    assert len(everything) == 1437
    assert len(held_out) == 359
    apart = np.setdiff1d(test.train_ids(), validation.train_ids())
    np.testing.assert_array_equal(held_out.labels, everything.labels[apart])
    assert held_out.features.equal(everything.features[apart])
    np.testing.assert_array_equal(shared.labels, everything.labels[validation.train_ids()])
    assert len(test.test_examples()) == 360


@pytest.mark.parametrize(("part", "share"), [("train", 0.1), ("validation", 1.0)])
def test_a_part_or_share_that_is_none_is_refused(tmp_path: Path, part: str, share: float) -> None:
    with pytest.raises(ValueError, match=r"validation, test|between 0 and 1"):
        HeldOut(tmp_path, "digits", part=part, share=share)


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
    comparison = Comparison(COMMON, {"0-0.8": {}}, methods, (1e-6, 0.1), PARTS)
    alone = Comparison(COMMON, {"0-0.8": {}}, methods, (0.1,), PARTS)

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
