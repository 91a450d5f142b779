"""Site report: what a site's person must see stands first, and only if it is so."""

from pathlib import Path

import numpy as np

from client_app.personal.comparison import Comparison
from client_app.personal.report import (
    NOTHING,
    SiteReport,
    clock_warnings,
    comparison_warnings,
    model_warnings,
)

FACTS = {"run": "r-1", "client": 2, "round": 5, "method": "sgd"}


def test_a_model_that_is_no_better_than_the_most_frequent_class_is_not_to_be_relied_on() -> None:
    labels = np.array([0] * 6 + [1] * 4)
    (weak,) = model_warnings(np.array([0] * 3 + [1] * 3 + [1] * 1 + [0] * 3), labels, ("cat", "dog"))
    assert weak.startswith(
        "The model is right on 40.0 % of 10 labels here; always saying 'cat' would be right on 60.0 %"
    )
    assert model_warnings(np.array([0] * 6 + [1] * 1 + [0] * 3), labels, ("cat", "dog")) == []
    assert model_warnings(np.zeros(9, np.int64), np.zeros(9, np.int64), ("cat", "dog")) == []  # a site with one class


def test_a_class_of_which_no_example_is_recognised_is_lost_unless_it_has_few() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2] * 4)
    (lost,) = model_warnings(np.array([0] * 20 + [1] * 4), np.where(labels == 1, 1, labels), ("a", "b", "c"))[1:]
    assert lost == "The class 'b' is lost: the model recognises none of your 10 examples of it."
    known = np.array([0] * 10 + [1] * 1 + [0] * 9 + [1] * 4)
    assert not [text for text in model_warnings(known, labels, ("a", "b", "c")) if "lost" in text]


def test_a_clock_that_is_behind_is_named_and_a_slow_message_is_not() -> None:
    assert clock_warnings(1000.0, 990.0) == clock_warnings(1000.0, 1600.0) == []
    (text,) = clock_warnings(1100.0, 1000.0)
    assert "at least 100 s behind" in text


def test_a_worse_personal_model_and_a_better_model_alone_are_warnings() -> None:
    better, worse = Comparison(20, 0.5, 0.9, 8, 0), Comparison(20, 0.9, 0.5, 0, 8)
    unsure = Comparison(20, 0.5, 0.6, 3, 1)
    assert comparison_warnings({"alone": worse, "tuned": better}, "alone") == []
    assert comparison_warnings({"alone": unsure, "tuned": unsure}, "alone") == []
    said = comparison_warnings({"alone": better, "tuned": worse}, "alone")
    assert [text[:25] for text in said] == ["The model that this site ", "The tuned is worse on new"]


def test_warnings_stand_first_and_both_files_say_the_same(tmp_path: Path) -> None:
    report = SiteReport(FACTS, 20, 0.5, {"alone": Comparison(20, 0.5, 0.45, 1, 2)}, warnings=["Look."])
    text = report.write(tmp_path / "site").read_text()
    lines = text.splitlines()
    assert lines[0] == "Report of site 2 about run r-1, after round 5"
    assert lines[3:5] == ["Look here first", "  - Look."]
    assert "45.0 % right   on 1 of the examples only this one is better, on 2 only that of all sites: too few" in text
    assert NOTHING in SiteReport(FACTS, 20, 0.5).text()
    assert "agrees with 50.0 % of the labels" in SiteReport(FACTS, 0, 0.5).text()
    assert (tmp_path / "site" / "site-report.json").stat().st_mode & 0o077 == 0


def test_a_best_model_of_an_earlier_round_is_said() -> None:
    earlier = SiteReport({**FACTS, "round": 5, "model_round": 3}, 20, 0.5).text()
    assert "that of round 3 of 5, which the run keeps as its best" in earlier
    assert "keeps as its best" not in SiteReport({**FACTS, "round": 5, "model_round": 5}, 20, 0.5).text()
