"""Decisions: files of several people, what counts when the audit changes, agreement, and what all decide."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from server_app.label_review.decisions import (
    Decision,
    DecisionFile,
    Verdict,
    agreement,
    agreements,
    all_decisions,
    read_decisions,
    united,
)
from server_app.label_review.review import LabelReview, ReviewError
from tests.label_reviews import review_of

RIGHT, WRONG, UNSURE = Verdict.RIGHT, Verdict.WRONG, Verdict.UNSURE


@pytest.fixture
def review(tmp_path: Path) -> LabelReview:
    return review_of(tmp_path)


def test_a_decision_is_in_the_file_at_once_for_this_user_alone_and_is_read_again(review: LabelReview):
    first, second = review.examples[0], review.examples[1]
    file = DecisionFile(review)
    file.decide({first.name: (WRONG, first.suggested)})
    file.decide({second.name: (RIGHT, "")})
    again = DecisionFile(review)
    assert again.current.keys() == {first.name, second.name}
    made = again.current[first.name]
    assert (made.verdict, made.given, made.label) == (WRONG, first.given, first.suggested)
    assert made.reviewer == file.reviewer
    assert made.time.endswith("+00:00")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.decide({first.name: None})
    assert read_decisions(file.path).keys() == {second.name}


@pytest.mark.parametrize("change", [(WRONG, "grey"), (WRONG, "same"), (RIGHT, "grey")])
def test_a_label_must_be_another_class(review: LabelReview, change: tuple[Verdict, str]):
    example, file = review.examples[0], DecisionFile(review)
    label = example.given if change[1] == "same" else change[1]
    with pytest.raises(ReviewError, match=r"is no class|cannot be replaced by the same"):
        file.decide({example.name: (change[0], label)})
    assert not file.path.exists()


def test_decisions_about_labels_that_are_listed_no_more_are_kept_and_do_not_count(review: LabelReview):
    first, second = review.examples[:2]
    DecisionFile(review).decide({each.name: (RIGHT, "") for each in (first, second)})
    changed = replace(review, examples=(replace(first, given=first.suggested), *review.examples[1:]))
    file = DecisionFile(changed)
    assert (file.current.keys(), file.outdated) == ({second.name}, 1)
    file.decide({second.name: None})
    assert read_decisions(file.path).keys() == {first.name}
    assert all_decisions(changed)[file.path] == {}


@pytest.mark.parametrize("name", ["a/b", "..", "../x", "a b", "", "x" * 65])
def test_a_reviewer_s_name_names_a_file_beside_the_audit(review: LabelReview, name: str):
    if not name:
        assert DecisionFile(review, name).path == review.folder / "decisions.csv"
        return
    with pytest.raises(ReviewError, match="letters, digits"):
        DecisionFile(review, name)


def test_only_one_process_writes_a_file(review: LabelReview):
    with DecisionFile(review).claimed():
        with pytest.raises(ReviewError, match="another 'winnow audit'"), DecisionFile(review).claimed():
            pass
        with DecisionFile(review, "ada").claimed():
            pass
    with DecisionFile(review).claimed():
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [("id,given\nx,dark\n", "no column 'decision'"), ("id,given,decision,label\nx,dark,maybe,\n", "line 2: 'maybe'")],
)
def test_a_damaged_file_is_refused_with_the_place(review: LabelReview, content: str, message: str):
    (review.folder / "decisions.csv").write_text(content)
    with pytest.raises(ReviewError, match=message):
        DecisionFile(review)


def made(*outcomes: str) -> dict[str, Decision]:
    """Decisions about labels of the class a: r = right, b = it is b, n = no class fits, u = unsure, - = none."""
    kinds = {"r": (RIGHT, ""), "b": (WRONG, "b"), "n": (WRONG, ""), "u": (UNSURE, "")}
    return {
        str(place): Decision(kinds[each][0], "a", kinds[each][1], "x")
        for place, each in enumerate(outcomes)
        if each != "-"
    }


def test_kappa_is_that_of_the_formula_on_what_both_have_decided():
    first, second = made(*"rrrrbbbnu-"), made(*"rrrbbbrnuu")
    # 9 shared: 7 alike. Outcomes of the first: a 4, b 3, none 1, unsure 1; of the second: a 4, b 3, none 1, unsure 1.
    observed, expected = 7 / 9, (4 * 4 + 3 * 3 + 1 + 1) / 81
    found = agreement(first, second, ("x", "y"))
    assert (found.both, found.alike) == (9, 7)
    assert found.kappa == pytest.approx((observed - expected) / (1 - expected))
    assert agreement(made("r", "r"), made("r", "r"), ("x", "y")).kappa is None
    assert agreements({Path("decisions-x.csv"): made("r", "-"), Path("decisions-y.csv"): made("-", "r")}) == []


def test_who_is_unsure_has_no_say_where_somebody_else_has():
    found = united([made(*"urub"), made(*"bru-")])
    assert {name: [each.outcome for each in each_made] for name, each_made in found.items()} == {
        "0": ["b"],
        "1": ["a", "a"],
        "2": ["(unsure)", "(unsure)"],
        "3": ["b"],
    }
