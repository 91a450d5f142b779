"""Corrections: what becomes of a label, the log, and audits that do not fit the data."""

import csv
import json
from pathlib import Path

import pytest

from client_app.label_audit_files import SUMMARY
from server_app.label_review.corrections import Outcome, apply_corrections, corrections
from server_app.label_review.decisions import DecisionFile, Verdict
from server_app.label_review.review import LabelReview, ReviewError, read_review
from tasks.own_data.relabelling import given_labels
from tests.label_reviews import audited, review_of

RIGHT, WRONG, UNSURE = Verdict.RIGHT, Verdict.WRONG, Verdict.UNSURE


def decided(review: LabelReview) -> list[str]:
    """Two people decide about six labels; return their names."""
    names = [each.name for each in review.examples[:6]]
    new = [each.suggested for each in review.examples[:6]]
    first = [(WRONG, new[0]), (RIGHT, ""), (WRONG, ""), (UNSURE, ""), (WRONG, new[4]), (UNSURE, "")]
    DecisionFile(review, "ada").decide(dict(zip(names, first, strict=True)))
    DecisionFile(review, "bob").decide({names[0]: (WRONG, new[0]), names[3]: (WRONG, new[3]), names[4]: (RIGHT, "")})
    return names


def test_a_label_changes_where_all_who_have_an_opinion_say_the_same(tmp_path: Path):
    review = review_of(tmp_path)
    decided(review)
    made = corrections(review)
    assert [each.outcome for each in made] == [
        *(Outcome.CHANGED, Outcome.CONFIRMED, Outcome.LEFT_OUT, Outcome.CHANGED, Outcome.DISAGREED, Outcome.UNSURE)
    ]
    assert [each.reviewers for each in made][:5] == [("ada", "bob"), ("ada",), ("ada",), ("bob",), ("ada", "bob")]
    assert corrections(review, keep_wrong=True)[2].outcome is Outcome.KEPT
    assert [each.outcome for each in corrections(review, "bob")] == [
        Outcome.CHANGED,
        Outcome.CHANGED,
        Outcome.CONFIRMED,
    ]
    with pytest.raises(ReviewError, match=r"there is no .*decisions\.csv"):
        corrections(review, "")


def test_the_copy_has_them_and_the_log_says_what_was_changed_by_whom(tmp_path: Path):
    review = review_of(tmp_path)
    names = decided(review)
    before = given_labels(review.task)  # type: ignore[arg-type]
    done = apply_corrections(corrections(review), tmp_path / "new")
    assert done.counts[Outcome.CHANGED] == 2
    rows = {row["id"]: row for row in csv.DictReader(done.log.open())}
    assert [*rows] == names
    first = rows[names[0]]
    assert (first["reviewers"], first["outcome"], first["given"]) == ("ada bob", "changed", review.examples[0].given)
    assert (first["label"], first["run"], first["client"]) == (review.examples[0].suggested, "pilot", "0")
    assert (tmp_path / "new" / first["new_id"]).is_file()
    assert rows[names[2]]["new_id"] == rows[names[2]]["label"] == ""
    assert rows[names[4]]["outcome"] == "reviewers disagree, kept"
    assert given_labels(review.task) == before  # type: ignore[arg-type]
    with pytest.raises(ReviewError, match="is there already"):
        apply_corrections(corrections(review), tmp_path / "new")


def test_data_that_has_changed_since_the_audit_is_not_corrected(tmp_path: Path):
    review = review_of(tmp_path)
    DecisionFile(review).decide({each.name: (RIGHT, "") for each in review.examples[:2]})
    first, second = (Path(review.declared.data_path) / each.name for each in review.examples[:2])
    first.unlink()
    with pytest.raises(ReviewError, match=r"is not as the audit saw it: .* is not there. Labels that the run"):
        apply_corrections(corrections(review), tmp_path / "new")
    other = {"dark": "bright", "bright": "dark"}[second.parent.name]
    second.rename(second.parents[1] / other / "moved.png")
    with pytest.raises(ReviewError, match=r"is not there; "):
        apply_corrections(corrections(review), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_label_that_the_run_made_wrong_is_in_no_file(tmp_path: Path):
    folder = audited(tmp_path, "text-csv")
    path = folder / "label-audit.csv"
    first = read_review(folder).examples[0]
    path.write_text(path.read_text().replace(f"{first.name},{first.given}", f"{first.name},{first.suggested}", 1))
    review = read_review(folder)
    DecisionFile(review).decide({first.name: (WRONG, first.given)})
    with pytest.raises(ReviewError, match=r"and the audit lists .*noise\.name"):
        apply_corrections(corrections(review), tmp_path / "new")


def test_several_clients_of_one_run_are_applied_together_and_of_different_data_not(tmp_path: Path):
    whole = review_of(tmp_path)
    parts = []
    for place in range(2):
        folder = tmp_path / f"client-{place}"
        folder.mkdir()
        (folder / SUMMARY).write_text((whole.folder / SUMMARY).read_text().replace('"client": 0', f'"client": {place}'))
        lines = (whole.folder / "label-audit.csv").read_text().splitlines()
        (folder / "label-audit.csv").write_text("\n".join([lines[0], *lines[1 + place :: 2]]) + "\n")
        part = read_review(folder)
        DecisionFile(part).decide({part.examples[0].name: (WRONG, part.examples[0].suggested)})
        parts.append(part)
    done = apply_corrections([*corrections(parts[0]), *corrections(parts[1])], tmp_path / "new")
    assert done.counts[Outcome.CHANGED] == 2
    assert [row["client"] for row in csv.DictReader(done.log.open())] == ["0", "1"]
    with pytest.raises(ReviewError, match="is in several of these audits"):
        apply_corrections([*corrections(parts[0]), *corrections(read_review(parts[0].folder))], tmp_path / "other")
    elsewhere = review_of(tmp_path / "elsewhere")
    DecisionFile(elsewhere).decide({elsewhere.examples[0].name: (RIGHT, "")})
    with pytest.raises(ReviewError, match="are of different data"):
        apply_corrections([*corrections(parts[0]), *corrections(elsewhere)], tmp_path / "other")


def test_what_cannot_be_reviewed_says_why(tmp_path: Path):
    with pytest.raises(ReviewError, match="there is no folder"):
        read_review(tmp_path / "nowhere")
    folder = audited(tmp_path)
    with pytest.raises(ReviewError, match=f"holds no label audit .* there is one in {folder}"):
        read_review(tmp_path)
    with pytest.raises(ReviewError, match="nobody has decided"):
        corrections(read_review(folder))
    facts = json.loads((folder / SUMMARY).read_text())
    (folder / SUMMARY).write_text(json.dumps({**facts, "task": None}))
    with pytest.raises(ReviewError, match="does not say of which task"):
        read_review(folder)
    (folder / SUMMARY).write_text(json.dumps({**facts, "task": {"name": "digits"}}))
    review = read_review(folder)
    (folder / "decisions.csv").write_text(
        f"id,given,decision,label\n{review.examples[0].name},{review.examples[0].given},right,\n"
    )
    with pytest.raises(ReviewError, match="is a data set, and no folder of your own"):
        apply_corrections(corrections(review), tmp_path / "new")


def test_data_may_lie_elsewhere_than_the_run_saw_it(tmp_path: Path):
    folder = audited(tmp_path)
    (tmp_path / "data").rename(tmp_path / "here")
    review = read_review(folder, tmp_path / "here")
    DecisionFile(review).decide({review.examples[0].name: (WRONG, review.examples[0].suggested)})
    assert apply_corrections(corrections(review), tmp_path / "new").counts[Outcome.CHANGED] == 1
    with pytest.raises(ReviewError, match="there is no such folder"):
        read_review(folder, tmp_path / "nowhere")


def test_columns_that_an_audit_may_have_more_are_kept_to_be_shown(tmp_path: Path):
    folder = audited(tmp_path)
    lines = (folder / "label-audit.csv").read_text().splitlines()
    (folder / "label-audit.csv").write_text("\n".join([f"{lines[0]},doubt", *(f"{line},7" for line in lines[1:])]))
    assert read_review(folder).examples[0].further["doubt"] == "7"
