"""Curves of a sweep: means and spreads over the runs of an option in a setting, and which rounds they have."""

from dataclasses import replace

import numpy as np
import pytest

from server_app.sweep.comparison import compare
from server_app.sweep.curves import MOST_POINTS, curves, span
from server_app.sweep.database import FAILED, TUNING
from tests.sweep_cases import design_of, synthetic_runs


def test_a_curve_has_mean_and_deviation_of_each_round():
    design = design_of(("fedavg", "winnow"), ("clean", "symmetric"), seeds=4)
    runs = synthetic_runs(design)
    drawn = curves(compare(design, runs), runs)
    assert set(drawn) == {(method, (noise,)) for method in ("fedavg", "winnow") for noise in ("clean", "symmetric")}
    series = [
        run.series["accuracy"] for run in runs if run.point["method"] == "winnow" and run.point["noise"] == "clean"
    ]
    values = np.array([[value for _, value in points] for points in series])
    curve = drawn["winnow", ("clean",)]
    assert (curve.runs, curve.rounds) == (4, tuple(range(21)))
    np.testing.assert_allclose(curve.means, values.mean(0))
    np.testing.assert_allclose(curve.high, values.mean(0) + values.std(0, ddof=1))
    np.testing.assert_allclose(curve.low, values.mean(0) - values.std(0, ddof=1))


def test_only_finished_runs_of_the_table_count_and_only_rounds_that_all_of_them_have():
    design = design_of(("fedavg",), ("clean",), seeds=4)
    early, failed, seen, unseen = synthetic_runs(design)
    early = replace(early, series={"accuracy": early.series["accuracy"][:8]})
    tuning = replace(seen, purpose=TUNING)
    runs = [early, replace(failed, state=FAILED), seen, replace(unseen, series={"loss": unseen.series["accuracy"]})]
    [curve] = curves(compare(design, runs), [*runs, tuning]).values()
    assert (curve.runs, curve.rounds) == (2, tuple(range(8)))
    np.testing.assert_allclose(curve.means[3], (early.series["accuracy"][3][1] + seen.series["accuracy"][3][1]) / 2)


def test_of_many_rounds_some_are_drawn_the_last_among_them():
    design = design_of(("fedavg",), ("clean",), seeds=1)
    runs = synthetic_runs(design, rounds=500)
    [curve] = curves(compare(design, runs), runs).values()
    assert len(curve.rounds) == MOST_POINTS
    assert (curve.rounds[0], curve.rounds[-1]) == (0, 500)
    assert set(np.diff(curve.rounds)) <= {8, 9}
    assert curve.deviations == (0.0,) * MOST_POINTS
    assert dict(runs[0].series["accuracy"])[curve.rounds[7]] == curve.means[7]


def test_the_axis_shows_what_comes_after_the_rise_at_the_start():
    design = design_of(("fedavg",), ("clean",), seeds=1)
    runs = synthetic_runs(design, rounds=20)
    low, high = span(curves(compare(design, runs), runs).values())
    points = [value for number, value in runs[0].series["accuracy"] if number >= 5]
    room = 0.06 * (max(points) - min(points))
    assert (low, high) == pytest.approx((min(points) - room, max(points) + room))
