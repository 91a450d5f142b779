"""How sure an accuracy is, whether it lasted, and how many labels are wrong, against scipy and numbers made by hand."""

from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from server_app.report import headline, read_run, write_report
from server_app.report.outcome import wilson_interval, wrong_share
from tests.run_directories import CLIENT_LINES, accuracies, validated, write_run


@pytest.mark.parametrize(("right", "of"), [(0, 1), (1, 1), (0, 40), (317, 360), (9_999, 10_000), (50, 100)])
def test_the_interval_is_that_of_wilson(right: int, of: int) -> None:
    expected = binomtest(right, of).proportion_ci(confidence_level=0.9, method="wilson")
    assert wilson_interval(right, of, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_headline_has_the_number_of_test_examples_and_the_interval(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", accuracies(0.1, 0.9), rounds=1, test_examples=1000)
    expected = binomtest(900, 1000).proportion_ci(method="wilson")
    ends = f"{100 * expected.low:.1f} to {100 * expected.high:.1f} %"
    assert f"to 90.0 % (1,000 examples, 95 % interval {ends}) in 1 round" in headline(read_run(path))
    page = write_report(path).read_text().replace("\u00a0", " ")
    assert f"of 1,000 clean test examples; 95 % interval {ends}" in page
    masks = write_run(tmp_path / "b", [{"round": 1, "accuracy": 0.9, "dice": 0.5}], test_examples=1000)
    assert "interval" not in headline(read_run(masks)), "pixels of one image are not independent"


@pytest.mark.parametrize(
    ("values", "best", "examples", "said"),
    [
        ((0.1, 0.9, 0.2), 1, 1000, "The model collapsed after round 1: it lost 70.0 percentage points until the end."),
        ((0.1, 0.9, 0.8), 1, 1000, "The model became worse after round 1: it lost 10.0 percentage points"),
        ((0.1, 0.9, 0.8), 1, 20, ""),  # the intervals of 18 and 16 of 20 overlap
        ((0.1, 0.9, 0.86), 1, 10**6, ""),  # sure, but small
        ((0.1, 0.9, 0.2), None, 1000, "collapsed after round 1, where it was highest: it lost 70.0"),
        ((0.1, 0.8, 0.9), 1, 1000, ""),
        ((0.9, 0.3, 0.2), None, 1000, ""),  # it never rose, which the headline says anyway
    ],
)
def test_a_fall_after_the_best_round_is_said(
    tmp_path: Path, values: tuple[float, ...], best: int | None, examples: int, said: str
) -> None:
    lines = accuracies(*values) if best is None else validated(accuracies(*values), *values)
    text = headline(read_run(write_run(tmp_path, lines, best_round=best, test_examples=examples)))
    assert said in text
    assert ("percentage points" in text) is bool(said)


def test_the_share_of_wrong_labels_weighs_clients_by_their_examples(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path, accuracies(0.1, 0.2), CLIENT_LINES))
    assert wrong_share(record) == (pytest.approx(30 * 0.8 / 40), "known")
    assert "60 % of all labels made wrong, up to 80 % at one client" in headline(record)


def test_where_nobody_knows_it_the_strategy_s_estimates_count(tmp_path: Path) -> None:
    def lines(levels: list[float | None]) -> list[dict[str, Any]]:
        sites = [{"round": 0, "client": i, "examples": 10 * (i + 1), "noise_rate": None} for i in range(2)]
        return [*sites, *({"round": 1, "client": i, "noise_level": level} for i, level in enumerate(levels))]

    known = read_run(write_run(tmp_path / "a", accuracies(0.1, 0.2), lines([0.3, 0.6]), simulation=False))
    assert wrong_share(known) == (pytest.approx(0.5), "estimated")
    assert "an estimated 50 % of all labels wrong" in headline(known)
    clean = read_run(write_run(tmp_path / "c", accuracies(0.1, 0.2), [{**CLIENT_LINES[0], "noise_rate": 0.0}]))
    assert wrong_share(clean) is None, "labels of somebody's own may be wrong, whatever the simulation did"
    assert "1 client, no label made wrong" in headline(clean)
    partly = read_run(write_run(tmp_path / "b", accuracies(0.1, 0.2), lines([0.3, None]), simulation=False))
    assert wrong_share(partly) is None
    assert "wrong" not in headline(partly)
