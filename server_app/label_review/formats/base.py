"""Format of an annotation tool, what all have in common: which audits it takes, and how a label becomes a decision."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from server_app.label_review.contents import Contents, Kind
from server_app.label_review.decisions import Verdict
from server_app.label_review.review import Example, LabelReview, ReviewError

Change = tuple[Verdict, str]


@dataclass
class Found:
    """What a tool's file says: decisions by example, names that the audit does not list, and what was passed over."""

    changes: dict[str, Change] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Format(ABC):
    """How an audit is written for a tool, and how the tool's own export is read.

    Attributes
    ----------
    name
        As it is called on the command line.
    title
        As its makers call it.
    ending
        Of the name of the file.
    kinds
        Contents that the tool can show; masks are no labels and are taken by the spreadsheet alone.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    ending: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]]
    takes_masks: ClassVar[bool] = False

    def check(self, review: LabelReview, kind: Kind) -> None:
        """Raise ``ReviewError`` if the tool cannot take such an audit."""
        if review.of_masks and not self.takes_masks:
            raise ReviewError(f"--format {self.name} takes one label for each example, and this audit lists masks: csv")
        if kind not in self.kinds:
            known = ", ".join(self.kinds)
            raise ReviewError(f"--format {self.name} shows examples of the kind {known}, and these are: {kind}; csv")

    @abstractmethod
    def write(self, review: LabelReview, contents: Contents, path: Path) -> dict[Path, bytes]:
        """Return the files of an export by their paths: ``path``, and what belongs beside it.

        Raises
        ------
        ContentError
            If an example is not there any more.
        """

    @abstractmethod
    def read(self, review: LabelReview, content: bytes) -> Found:
        """Read what the tool has exported.

        Raises
        ------
        ReviewError
            If it is no such file.
        """

    @abstractmethod
    def next_step(self, path: Path) -> str:
        """Say in a sentence how the tool takes the file."""

    def _of_label(self, found: Found, example: Example, label: str, review: LabelReview, checked: bool = True) -> None:
        """Note the decision that a label stands for; an unchanged one that nobody has ``checked`` is none.

        Raises
        ------
        ReviewError
            If there is no such class.
        """
        if label not in review.class_names:
            known = ", ".join(review.class_names)
            raise ReviewError(f"{example.name}: {label!r} is no class of this task; classes: {known}")
        if label != example.given:
            found.changes[example.name] = (Verdict.WRONG, label)
        elif checked:
            found.changes[example.name] = (Verdict.RIGHT, "")


def guess(content: bytes) -> str:
    """Return the name of the format that a file has.

    Raises
    ------
    ReviewError
        If it is none of them.
    """
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"<":
        return "cvat"
    if start == b"{":
        return "fiftyone"
    if start == b"[":
        first = table(next(iter(json_content(content, "a tool", list)), None))
        return "argilla" if "fields" in first else "label-studio"
    if b"decision" in content.partition(b"\n")[0]:
        return "csv"
    raise ReviewError("the file is none that winnow audit export or a tool has written; name the tool with --format")


def json_content(content: bytes, title: str, kind: type) -> Any:
    """Return a JSON document that is a list or an object.

    Raises
    ------
    ReviewError
        If it is not.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ReviewError(f"the file is no JSON as {title} exports it: {error}") from error
    if not isinstance(found, kind):
        noun = "a list" if kind is list else "an object"
        raise ReviewError(f"the file is no export of {title}: {noun} is expected")
    return found


def json_bytes(content: object) -> bytes:
    """Return a JSON document, one that people can read."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def table(content: object) -> Mapping[str, Any]:
    """Return an object of a JSON document, an empty one in the place of anything else."""
    return content if isinstance(content, dict) else {}


def items(content: object) -> list[Any]:
    """Return a list of a JSON document, an empty one in the place of anything else."""
    return content if isinstance(content, list) else []
