"""The detection benchmark: what it compares, never how fast."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import detection_profiles
from benchmarks.detection import arguments, row, score
from benchmarks.detection_profiles import NOISES, PARTITIONS, Case, Outcome, profiles, warm_up
from server_app.validation.config import check
from strategies.detection import Detection
from tasks.config import to_flat
from tests.detection_cases import GRID, TWO_KINDS
from tests.detection_cases import profiles as made


def outcome(rates: np.ndarray, seed: int = 0) -> Outcome:
    return Outcome(*made(rates, seed=seed, alpha=10.0), rates, 0.9)


def test_the_upper_half_of_a_grid_is_wanted_else_whoever_has_wrong_labels():
    assert outcome(GRID).wanted().sum() == 10
    assert outcome(TWO_KINDS).wanted().tolist() == (TWO_KINDS > 0).tolist()
    assert not outcome(np.zeros(5)).wanted().any()


def test_scores_are_those_of_posterior_and_decision():
    known = outcome(np.array([0.0, 0.0, 0.5, 0.5]))
    found = Detection(np.array([0.1, 0.6, 0.4, 0.9]), np.array([False, True, False, True]), 2, "")
    assert score(known, found) == (75.0, 50.0)
    assert np.isnan(score(outcome(np.zeros(4)), found)).all()


def test_a_row_holds_means_over_seeds_and_how_often_two_groups_were_found():
    cells = row("x", "iid", "robust", [outcome(TWO_KINDS, seed) for seed in range(3)]).split(" | ")
    assert cells == ["| x", "iid", "robust", "100.00 ± 0.00", "100.00 ± 0.00", "3 of 3", "30.00 ± 0.00 |"]
    assert row("clean", "iid", "robust", [outcome(np.zeros(20))]) == "| clean | iid | robust | - | - | 0 of 1 | 0.00 |"


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_every_digits_federation_passes_the_check(noise: str, partition: str):
    settings = Case("digits", 20, partition, noise, 1).settings()
    assert check(to_flat(settings)) == settings


def test_a_warm_up_learns_and_profiles_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    case = Case("digits", 4, "iid", "symmetric 0-0.8", 1, rounds=2)
    first = profiles(case, tmp_path)
    monkeypatch.setattr(detection_profiles, "warm_up", None)
    again = profiles(case, tmp_path)
    assert np.array_equal(first.losses, again.losses)
    assert first.accuracy == again.accuracy > 0.3
    assert first.counts.sum() == 1437
    assert np.array_equal(warm_up(case.settings()).losses, first.losses)
    assert np.argmax((first.losses * first.counts).sum(1) / first.counts.sum(1)) == np.argmax(first.rates)


def test_the_default_compares_both_detectors_on_everything():
    args = arguments(["--cache", "x"])
    assert args.detectors == ["official", "robust"]
    assert (args.partitions, args.noises) == (list(PARTITIONS), list(NOISES))
