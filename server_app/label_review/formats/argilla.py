"""Argilla: records with suggestions that have a score and an agent, as ``dataset.records.to_json`` writes them.

Format: Argilla's reference of ``rg.Record`` and ``dataset.records`` (version 2); its own reader takes the file.
"""

from pathlib import Path
from typing import Any

from server_app.label_review.contents import Contents
from server_app.label_review.formats.base import Format, Found, items, json_bytes, json_content, table
from server_app.label_review.review import LabelReview

QUESTION, COMPLETED = "label", "completed"


class Argilla(Format):
    """Records as JSON: a field with the example, a suggestion for the question ``label``, and metadata."""

    name, title, ending = "argilla", "Argilla", ".json"
    kinds = ("image", "text", "fields")

    def write(self, review: LabelReview, contents: Contents, path: Path) -> dict[Path, bytes]:
        """Return the records."""
        return {path: json_bytes([self._record(review, contents, number) for number in range(len(review.examples))])}

    def read(self, review: LabelReview, content: bytes) -> Found:
        """Read records that are completed. Of others Argilla does not say whether a response is a draft."""
        found, open_ones = Found(), 0
        for each in json_content(content, self.title, list):
            record = table(each)
            name = str(record.get("id", ""))
            example = review.by_name.get(name)
            responses = items(table(record.get("responses")).get(QUESTION))
            answers = {str(value) for one in responses if (value := table(one).get("value")) is not None}
            if example is None:
                found.unknown.append(name)
            elif answers and record.get("status") != COMPLETED:
                open_ones += 1
            elif len(answers) > 1:
                found.notes.append(f"{name}: responses that differ, so none was taken")
            elif answers:
                self._of_label(found, example, answers.pop(), review)
        if open_ones:
            found.notes.append(f"{open_ones} records have responses and are not completed, so they were left aside")
        return found

    def next_step(self, path: Path) -> str:
        """Say how a dataset takes the records."""
        return (
            f"In Python with argilla: dataset.records.from_json({path.name!r}), for a dataset with a field, a label "
            f"question {QUESTION!r} of these classes, and metadata 'given' (terms) and 'suspicion' (float); "
            "dataset.records(with_responses=True).to_json(...) gives the file back."
        )

    @staticmethod
    def _record(review: LabelReview, contents: Contents, number: int) -> dict[str, Any]:
        example = review.examples[number]
        if contents.kind == "image":
            fields = {"image": str(contents.path(number))}
        elif contents.kind == "text":
            fields = {"text": contents.text(number)}
        else:
            fields = {"text": "\n".join(f"{name}: {cell}" for name, cell in contents.fields(number))}
        suggestion = {"value": example.suggested, "score": example.confidence, "agent": review.model_version}
        return {
            "id": example.name,
            "fields": fields,
            "metadata": {"given": example.given, "suspicion": example.suspicion},
            "suggestions": {QUESTION: suggestion},
            "responses": {},
            "vectors": {},
        }
