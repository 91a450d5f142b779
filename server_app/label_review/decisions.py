"""Decisions of reviewers about labels: one file for each person beside the audit, agreement, and what all decide.

A decision is about a label as it was given: if a later audit lists another label for the example, it counts no more.
"""

import csv
import fcntl
import getpass
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from client_app.label_audit_files import csv_cell, plain_cell
from server_app.label_review.review import Example, LabelReview, ReviewError
from tasks.files import replace_file

STEM = "decisions"
COLUMNS = ("id", "given", "decision", "label", "reviewer", "time")
REVIEWER = re.compile(r"[\w][\w.@-]{0,63}")


class Verdict(StrEnum):
    """What a person says of a label."""

    RIGHT = "right"
    WRONG = "wrong"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Decision:
    """What one person has decided about one label.

    ``given`` is the label that was looked at; ``label`` the one that is right in its place, if ``verdict`` is wrong;
    empty if none of the classes is, or nobody has said which. ``time`` is in UTC, in ISO 8601.
    """

    verdict: Verdict
    given: str
    label: str = ""
    reviewer: str = ""
    time: str = ""

    @property
    def outcome(self) -> str:
        """The label that the person would give; ``(none)`` where no class fits, ``(unsure)`` for no opinion."""
        if self.verdict is Verdict.UNSURE:
            return "(unsure)"
        return self.given if self.verdict is Verdict.RIGHT else self.label or "(none)"


@dataclass(frozen=True)
class Agreement:
    """How much two people agree: on how many labels both have decided, on how many alike, and Cohen's kappa.

    ``kappa`` is None where it is not defined: everything has one outcome.
    """

    first: str
    second: str
    both: int
    alike: int
    kappa: float | None


def current_user() -> str:
    """Return who is at work here, as the system calls them."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        name = f"user-{os.getuid()}"
    return name if REVIEWER.fullmatch(name) else f"user-{os.getuid()}"


def decisions_path(folder: Path, reviewer: str = "") -> Path:
    """Return the file of the decisions of a person; the first one needs no name.

    Raises
    ------
    ReviewError
        If the name is none for a file.
    """
    if reviewer and not REVIEWER.fullmatch(reviewer):
        raise ReviewError(f"--reviewer {reviewer!r}: up to 64 letters, digits and . @ - _ are expected, no blanks")
    return folder / (f"{STEM}-{reviewer}.csv" if reviewer else f"{STEM}.csv")


class DecisionFile:
    """The decisions of one person, saved whenever one is made.

    Parameters
    ----------
    review
        What is decided about.
    reviewer
        Name of the person; empty: the user of this machine, in ``decisions.csv``.

    Raises
    ------
    ReviewError
        If the file is damaged, or the name is none for a file.
    """

    def __init__(self, review: LabelReview, reviewer: str = "") -> None:
        self.path = decisions_path(review.folder, reviewer)
        self.reviewer = reviewer or current_user()
        self._review = review
        self._all = read_decisions(self.path) if self.path.exists() else {}

    @property
    def current(self) -> dict[str, Decision]:
        """The decisions about labels that the audit lists."""
        return {name: decision for name, decision in self._all.items() if fits(decision, self._review, name)}

    @property
    def outdated(self) -> int:
        """Number of decisions about examples or labels that the audit does not list; they are kept."""
        return len(self._all) - len(self.current)

    def decide(self, changes: Mapping[str, tuple[Verdict, str] | None]) -> None:
        """Note and save decisions ``(verdict, label)`` by the names of examples; None takes one back.

        Raises
        ------
        ReviewError
            If there is no such example, or a label is no class.
        WriteError
            If the file cannot be written.
        """
        now, after = datetime.now(UTC).isoformat(timespec="seconds"), dict(self._all)
        for name, change in changes.items():
            example = self._review.by_name.get(name)
            if example is None:
                raise ReviewError(f"the audit lists no example {name!r}")
            if change is None:
                after.pop(name, None)
            else:
                verdict, label = _checked(example, change, self._review.class_names)
                after[name] = Decision(verdict, example.given, label, self.reviewer, now)
        replace_file(self.path, _content(after), private=True)
        self._all = after

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from writing the same file meanwhile.

        Raises
        ------
        ReviewError
            If one is at it already, or this user may not write there.
        """
        try:
            handle = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise ReviewError(f"decisions cannot be saved in {self.path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            remedy = "end it first, or take another name with --reviewer NAME"
            raise ReviewError(f"another 'winnow audit' writes {self.path}: {remedy}") from error
        finally:
            os.close(handle)


def fits(decision: Decision, review: LabelReview, name: str) -> bool:
    """Tell whether a decision is about a label that the audit lists."""
    return name in review.by_name and review.by_name[name].given == decision.given


def _checked(example: Example, change: tuple[Verdict, str], classes: Sequence[str]) -> tuple[Verdict, str]:
    verdict, label = change
    if label and label not in classes:
        raise ReviewError(f"{example.name}: {label!r} is no class; classes: {', '.join(classes)}")
    if verdict is not Verdict.WRONG:
        return verdict, ""
    if label and label == example.given:
        raise ReviewError(f"{example.name}: a wrong label cannot be replaced by the same, {label!r}")
    return verdict, label


def read_decisions(path: Path) -> dict[str, Decision]:
    """Return the decisions in a file by the names of examples.

    Raises
    ------
    ReviewError
        If it is no such file.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{k: plain_cell(cell or "") for k, cell in row.items() if k} for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise ReviewError(f"{path} cannot be read: {error}") from error
    found = {}
    for line, row in enumerate(rows, 2):
        if missing := [name for name in COLUMNS[:4] if name not in row]:
            raise ReviewError(f"{path} has no column {missing[0]!r}; expected are {', '.join(COLUMNS)}")
        if row["decision"] not in [*Verdict]:
            raise ReviewError(f"{path} line {line}: {row['decision']!r} is no decision; expected {', '.join(Verdict)}")
        verdict, further = Verdict(row["decision"]), (row.get("reviewer", ""), row.get("time", ""))
        found[row["id"]] = Decision(verdict, row["given"], row["label"], *further)
    return found


def _content(decisions: Mapping[str, Decision]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, each in decisions.items():
        row = (name, each.given, each.verdict.value, each.label, each.reviewer, each.time)
        writer.writerow([csv_cell(cell) for cell in row])
    return text.getvalue().encode(errors="backslashreplace")


def all_decisions(review: LabelReview) -> dict[Path, dict[str, Decision]]:
    """Return the decisions of every person, by their files, as far as they are about what the audit lists.

    Raises
    ------
    ReviewError
        If a file is damaged.
    """
    paths = [review.folder / f"{STEM}.csv", *sorted(review.folder.glob(f"{STEM}-*.csv"))]
    return {
        path: {name: each for name, each in read_decisions(path).items() if fits(each, review, name)}
        for path in paths
        if path.is_file()
    }


def agreement(first: Mapping[str, Decision], second: Mapping[str, Decision], names: tuple[str, str]) -> Agreement:
    """Return how much two people agree, by the outcomes of the labels that both have decided.

    Kappa: Cohen, Educational and Psychological Measurement 1960, by scikit-learn.
    """
    shared = sorted(first.keys() & second.keys())
    pairs = [(first[name].outcome, second[name].outcome) for name in shared]
    alike = sum(one == other for one, other in pairs)
    kappa = None
    if len({outcome for pair in pairs for outcome in pair}) > 1:
        from sklearn.metrics import cohen_kappa_score

        kappa = float(cohen_kappa_score([one for one, _ in pairs], [other for _, other in pairs]))
    return Agreement(*names, len(shared), alike, kappa)


def person(path: Path, decisions: Mapping[str, Decision]) -> str:
    """Return whose decisions a file holds."""
    named = path.stem.removeprefix(STEM).removeprefix("-")
    return named or next((each.reviewer for each in decisions.values() if each.reviewer), path.name)


def agreements(found: Mapping[Path, Mapping[str, Decision]]) -> list[Agreement]:
    """Return the agreement of each two people that have decided about the same labels."""
    people = [(person(path, decisions), decisions) for path, decisions in found.items()]
    pairs = [(one, other) for place, one in enumerate(people) for other in people[place + 1 :]]
    every = [agreement(one[1], other[1], (one[0], other[0])) for one, other in pairs]
    return [each for each in every if each.both]


def united(found: Iterable[Mapping[str, Decision]]) -> dict[str, list[Decision]]:
    """Return by example the decisions of all who have an opinion; who is unsure has none if somebody else has."""
    together: dict[str, list[Decision]] = {}
    for decisions in found:
        for name, decision in decisions.items():
            together.setdefault(name, []).append(decision)
    return {
        name: [each for each in made if each.verdict is not Verdict.UNSURE] or made for name, made in together.items()
    }
