"""Spreadsheet: the audit's list as CSV, with columns for decisions to fill in, for whoever works in a table."""

import csv
import io
from pathlib import Path

from client_app.label_audit_files import csv_cell, plain_cell
from server_app.label_review.contents import Contents
from server_app.label_review.decisions import DecisionFile, Verdict
from server_app.label_review.formats.base import Format, Found
from server_app.label_review.review import LabelReview, ReviewError

COLUMNS = ("id", "given", "suggested", "confidence", "suspicion", "decision", "label")


class Spreadsheet(Format):
    """A row for each example in the order of the audit; ``decision`` is right, wrong or unsure, ``label`` a class."""

    name, title, ending = "csv", "the spreadsheet", ".csv"
    kinds = ("image", "text", "fields", "none")
    takes_masks = True

    def write(self, review: LabelReview, contents: Contents, path: Path) -> dict[Path, bytes]:
        """Return the table, with the decisions of ``decisions.csv`` so far."""
        decided, text = DecisionFile(review).current, io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for each in review.examples:
            own = decided.get(each.name)
            confidence = "" if each.confidence is None else each.confidence
            made = ("", "") if own is None else (own.verdict.value, own.label)
            row = (each.name, each.given, each.suggested, confidence, each.suspicion, *made)
            writer.writerow([csv_cell(cell) for cell in row])
        return {path: text.getvalue().encode(errors="backslashreplace")}

    def read(self, review: LabelReview, content: bytes) -> Found:
        """Read the rows that have a decision, or a label; a label alone says that it is right in place of another."""
        try:
            rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ReviewError(f"the file is no table in UTF-8: {error}") from error
        if rows and (missing := [name for name in ("id", "decision") if name not in rows[0]]):
            raise ReviewError(f"the table has no column {missing[0]!r}; expected are {', '.join(COLUMNS)}")
        found = Found()
        for line, row in enumerate(rows, 2):
            cells = {
                name: plain_cell((cell or "").strip())
                for name, cell in row.items()
                if name and not isinstance(cell, list)
            }
            decision, label = cells.get("decision", "").lower(), cells.get("label", "")
            example = review.by_name.get(cells["id"])
            if example is None:
                found.unknown.append(cells["id"])
            elif decision and decision not in [*Verdict]:
                raise ReviewError(f"line {line}: {decision!r} is no decision; expected are {', '.join(Verdict)}")
            elif decision == Verdict.UNSURE or (decision and not label):
                found.changes[example.name] = (Verdict(decision), "")
            elif label and decision == Verdict.RIGHT and label != example.given:
                raise ReviewError(f"line {line}: the label is called right, and {label!r} stands in its place")
            elif label:
                self._of_label(found, example, label, review)
        return found

    def next_step(self, path: Path) -> str:
        """Say what to fill in."""
        return f"Fill in the columns decision ({', '.join(Verdict)}) and label of {path.name}."
