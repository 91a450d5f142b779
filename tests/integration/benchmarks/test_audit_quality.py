"""The audit benchmark: a small federation is measured from end to end, and what is compared is compared fairly."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest

from benchmarks import audit_quality, audit_traces
from benchmarks.audit_quality import Found, cases, confident_learning, measure, out_of_fold, scored
from benchmarks.audit_traces import COMMON, SITES, Case


def test_what_is_found_is_scored_by_hand():
    wrong = np.array([True, True, False, False])
    found = scored(np.array([0.9, 0.2, 0.3, 0.1]), np.array([True, False, True, False]), wrong)
    assert found == Found(auc=3 / 4, recall=1 / 2, precision=1 / 2)
    nothing = scored(np.zeros(4), np.zeros(4, bool), np.zeros(4, bool))
    assert np.isnan([nothing.auc, nothing.recall, nothing.precision]).all()


def test_beliefs_out_of_fold_do_not_know_the_examples_own_label():
    draw = np.random.default_rng(0)
    labels, features = np.repeat([2, 5], 30), draw.normal(size=(60, 4)).astype(np.float32)
    features[:, 0] += 4 * (labels == 5)
    changed = labels.copy()
    changed[7] = 5
    before, after = (out_of_fold(features, given, seed=0)[7] for given in (labels, changed))
    assert before.tolist() == after.tolist()
    found = confident_learning(out_of_fold(features, changed, seed=0), changed, changed != labels)
    assert (found.auc, found.recall) == (1.0, 1.0)


def test_a_federation_is_played_once_and_each_site_gets_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(audit_traces, "COMMON", {**COMMON, "num-server-rounds": 1, "train.epochs": 1})
    case = Case("digits", "symmetric", "winnow", 1)
    lines = measure(case, tmp_path, pooled=True)
    monkeypatch.setattr(audit_traces, "Federation", None)  # it is not needed again
    arguments = ["x", "--data", "digits", "--noises", "symmetric", "--methods", "winnow", "--seeds", "1"]
    monkeypatch.setattr("sys.argv", [*arguments, "--traces", str(tmp_path), "--output", str(tmp_path / "out.csv")])
    monkeypatch.setattr(logging.getLogger("flwr"), "setLevel", lambda _: None)  # other tests read its warnings
    audit_quality.main()
    assert [line.site for line in lines] == list(range(SITES))
    assert lines[0].rate == 0.0
    assert lines[-1].rate == pytest.approx(0.5, abs=0.02)
    assert all(0 <= line.low <= line.estimate <= line.high <= 1 for line in lines)
    assert lines[-1].pooled is not None
    assert lines[-1].pooled.auc > 0.9  # logistic regression on the pixels of all sites
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [float(row["high"]) for row in rows] == [line.high for line in lines]
    assert "| digits | symmetric | winnow | 10 |" in capsys.readouterr().out


def test_nobody_has_labelled_digits_wrong_by_hand():
    args = audit_quality.arguments(["--output", "x.csv", "--seeds", "1", "--methods", "winnow"])
    assert {(case.data, case.noise) for case in cases(args)} >= {("cifar-10", "human"), ("digits", "pair-flip")}
    assert ("digits", "human") not in {(case.data, case.noise) for case in cases(args)}
