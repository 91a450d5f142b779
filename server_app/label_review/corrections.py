"""Corrections: what all reviewers of one or several audits have decided, applied to a copy of the data, with a log.

The log says of each label what became of it, who decided that and when.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from client_app.label_audit_files import csv_cell
from server_app.label_review.decisions import Decision, Verdict, all_decisions, decisions_path, united
from server_app.label_review.review import LabelReview, ReviewError
from tasks.base import DataError
from tasks.files import replace_file
from tasks.own_data.base import OwnDataTask
from tasks.own_data.relabelling import given_labels, relabelled_copy

LOG_COLUMNS = ("id", "new_id", "given", "label", "outcome", "reviewers", "time", "client", "run")


class Outcome(StrEnum):
    """What becomes of a label that somebody has decided about."""

    CHANGED = "changed"
    LEFT_OUT = "left out"
    CONFIRMED = "confirmed"
    UNSURE = "unsure, kept"
    DISAGREED = "reviewers disagree, kept"
    KEPT = "wrong, kept"


@dataclass(frozen=True)
class Correction:
    """One label and what becomes of it: ``label`` is the new one, the given one where it is kept, "" if left out."""

    name: str
    given: str
    label: str
    outcome: Outcome
    reviewers: tuple[str, ...]
    time: str
    review: LabelReview


@dataclass(frozen=True)
class Applied:
    """What was written: the copy, the log, and how many labels have which outcome."""

    output: Path
    log: Path
    counts: Counter[Outcome]


def corrections(review: LabelReview, reviewer: str | None = None, keep_wrong: bool = False) -> list[Correction]:
    """Return what becomes of every label that was decided about, in the order of the audit.

    A label is changed or left out where all who have an opinion say the same. One that is wrong, and for which nobody
    has named another, is left out; with ``keep_wrong`` it stays.

    Parameters
    ----------
    review
        The audit.
    reviewer
        Only this person's decisions; empty: those of ``decisions.csv``; None: everybody's.

    Raises
    ------
    ReviewError
        If there are no decisions, or a file is damaged.
    """
    found = all_decisions(review)
    if reviewer is not None:
        path = decisions_path(review.folder, reviewer)
        if path not in found:
            raise ReviewError(f"there is no {path}: decide with  winnow audit open {review.folder}")
        found = {path: found[path]}
    together = united(found.values())
    if not together:
        raise ReviewError(f"nobody has decided about labels in {review.folder}: winnow audit open {review.folder}")
    return [
        _correction(review, each.name, together[each.name], keep_wrong)
        for each in review.examples
        if each.name in together
    ]


def _correction(review: LabelReview, name: str, made: Sequence[Decision], keep_wrong: bool) -> Correction:
    first, given = made[0], made[0].given
    label, outcome = given, Outcome.CONFIRMED
    if len({each.outcome for each in made}) > 1:
        outcome = Outcome.DISAGREED
    elif first.verdict is Verdict.UNSURE:
        outcome = Outcome.UNSURE
    elif first.verdict is Verdict.WRONG and first.label:
        label, outcome = first.label, Outcome.CHANGED
    elif first.verdict is Verdict.WRONG:
        label, outcome = (given, Outcome.KEPT) if keep_wrong else ("", Outcome.LEFT_OUT)
    who = tuple(dict.fromkeys(each.reviewer for each in made if each.reviewer))
    return Correction(name, given, label, outcome, who, max(each.time for each in made), review)


def apply_corrections(made: Sequence[Correction], output: Path, hard_links: bool = False) -> Applied:
    """Write a copy of the data with the corrections, and ``<output>-corrections.csv`` beside it.

    All corrections must be about one data folder; the labels in it must be those that the audits list.

    Raises
    ------
    ReviewError
        If they are not, or the task has no files of its own.
    DataError
        If the copy cannot be made; then nothing is written.
    WriteError
        If the log cannot be written.
    """
    task = _task(made)
    _check_given(made, task)
    number = {name: place for place, name in enumerate(task.class_names)}
    changing = [each for each in made if each.outcome in (Outcome.CHANGED, Outcome.LEFT_OUT)]
    changes = {each.name: None if each.outcome is Outcome.LEFT_OUT else number[each.label] for each in changing}
    log = output.with_name(f"{output.name}-corrections.csv")
    if log.exists():
        raise ReviewError(f"{log} is there already; name a new folder, nothing is written over")
    names = relabelled_copy(task, changes, output, hard_links)
    replace_file(log, _log(made, names), private=True)
    return Applied(output, log, Counter(each.outcome for each in made))


def _task(made: Sequence[Correction]) -> OwnDataTask:
    reviews = {id(each.review): each.review for each in made}.values()
    first, *others = reviews
    for other in others:
        if other.declared != first.declared:
            raise ReviewError(
                f"the audits in {first.folder} and {other.folder} are of different data: apply each alone"
            )
    twice = [name for name, count in Counter(each.name for each in made).items() if count > 1]
    if twice:
        raise ReviewError(f"{twice[0]!r} is in several of these audits; name each audit once, and those of one run")
    if not isinstance(first.task, OwnDataTask):
        raise ReviewError(
            f"the task {first.declared.name!r} is a data set, and no folder of your own whose labels could be written "
            "anew; winnow audit export --format csv has the decisions"
        )
    return first.task


def _check_given(made: Sequence[Correction], task: OwnDataTask) -> None:
    """Raise ``ReviewError`` if the data has other labels than the audit lists, or not the same examples."""
    try:
        known = given_labels(task)
    except DataError as error:
        raise ReviewError(str(error)) from error
    wrong = list(_other(made, known, task))
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ReviewError(
            f"{task.root} is not as the audit saw it: {'; '.join(wrong[:3])}{more}. Labels that the run made wrong "
            "on purpose (noise.name) are in no file. Else name the folder as it was with --data, or make a new audit"
        )


def _other(made: Sequence[Correction], known: dict[str, int], task: OwnDataTask) -> Iterator[str]:
    for each in made:
        if each.name not in known:
            yield f"{each.name} is not there"
        elif not task.labels_pixels and task.class_names[known[each.name]] != each.given:
            yield f"{each.name} is labelled {task.class_names[known[each.name]]!r}, and the audit lists {each.given!r}"


def _log(made: Sequence[Correction], names: dict[str, str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LOG_COLUMNS)
    for each in made:
        new = "" if each.outcome is Outcome.LEFT_OUT else names.get(each.name, each.name)
        who, review = " ".join(each.reviewers), each.review
        row = (each.name, new, each.given, each.label, each.outcome.value, who, each.time, review.client, review.run)
        writer.writerow([csv_cell(cell) for cell in row])
    return text.getvalue().encode(errors="backslashreplace")
