"""Label Studio: tasks with predictions that have a score and a model version, and its JSON export.

Formats: Label Studio's pages "Import pre-annotated data" and "Label Studio JSON format of annotated tasks". Images are
named as files of a local storage, ``/data/local-files/?d=``, which Label Studio serves if it is told to.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from server_app.label_review.contents import Contents
from server_app.label_review.decisions import Verdict
from server_app.label_review.formats.base import Format, Found, items, json_bytes, json_content, table
from server_app.label_review.review import Example, LabelReview

NAME = "winnow_id"
LABEL, DOUBT, OBJECT = "label", "doubt", "example"
UNSURE, NONE = "unsure", "no class fits"


class LabelStudio(Format):
    """Tasks as JSON, and the labeling interface beside them as XML."""

    name, title, ending = "label-studio", "Label Studio", ".json"
    kinds = ("image", "text", "fields")

    def write(self, review: LabelReview, contents: Contents, path: Path) -> dict[Path, bytes]:
        """Return the tasks, and the interface ``*.xml`` that belongs to them."""
        tasks = [self._task(review, contents, number) for number in range(len(review.examples))]
        return {path: json_bytes(tasks), path.with_suffix(".xml"): interface(review, contents.kind).encode()}

    def read(self, review: LabelReview, content: bytes) -> Found:
        """Read an export in the format JSON; several annotations of a task must say the same."""
        found = Found()
        for task in json_content(content, self.title, list):
            name = str(table(table(task).get("data")).get(NAME, ""))
            example = review.by_name.get(name)
            if example is None:
                found.unknown.append(name)
                continue
            made = [each for each in items(table(task).get("annotations")) if not table(each).get("was_cancelled")]
            answers = {(self._choice(each, LABEL), self._choice(each, DOUBT)) for each in made} - {("", "")}
            if len(answers) > 1:
                found.notes.append(f"{name}: annotations that differ, so none was taken")
            elif answers:
                self._note(found, example, *answers.pop(), review)
        return found

    def next_step(self, path: Path) -> str:
        """Say how a project takes the tasks."""
        return (
            f"In a project of Label Studio: Settings, Labeling Interface, Code takes {path.with_suffix('.xml').name}; "
            f"Import takes {path.name}. For images start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/, and add the data folder as local storage."
        )

    def _task(self, review: LabelReview, contents: Contents, number: int) -> dict[str, Any]:
        example = review.examples[number]
        result = {
            "id": "suggested",
            "from_name": LABEL,
            "to_name": OBJECT,
            "type": "choices",
            "value": {"choices": [example.suggested]},
        }
        score = {} if example.confidence is None else {"score": example.confidence}
        shown = {"given": example.given, "suspicion": example.suspicion, "rank": number + 1}
        return {
            "data": {NAME: example.name, contents.kind: _shown(contents, number), **shown},
            "predictions": [{"model_version": review.model_version, **score, "result": [result]}],
        }

    @staticmethod
    def _choice(annotation: object, control: str) -> str:
        for result in items(table(annotation).get("result")):
            chosen = items(table(table(result).get("value")).get("choices"))
            if table(result).get("from_name") == control and chosen:
                return str(chosen[0])
        return ""

    def _note(self, found: Found, example: Example, label: str, doubt: str, review: LabelReview) -> None:
        if doubt:
            found.changes[example.name] = (Verdict.UNSURE if doubt == UNSURE else Verdict.WRONG, "")
        else:
            self._of_label(found, example, label, review)


def _shown(contents: Contents, number: int) -> str:
    if contents.kind == "image":
        path = contents.path(number)
        assert path is not None, "Contents of another kind are refused before"
        return f"/data/local-files/?d={quote(str(path).lstrip('/'))}"
    if contents.kind == "text":
        return contents.text(number)
    return "\n".join(f"{name}: {cell}" for name, cell in contents.fields(number))


def interface(review: LabelReview, kind: str) -> str:
    """Return the labeling interface: the example, its given label, the classes, and two ways not to choose one."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", value="Given label: $given")
    ElementTree.SubElement(view, "Image" if kind == "image" else "Text", name=OBJECT, value=f"${kind}")
    for name, choices in ((LABEL, review.class_names), (DOUBT, (UNSURE, NONE))):
        group = ElementTree.SubElement(view, "Choices", name=name, toName=OBJECT, choice="single", showInline="true")
        for choice in choices:
            ElementTree.SubElement(group, "Choice", value=choice)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
