"""CVAT: image tags in its format "CVAT for images 1.1", and the labels of the task.

Format: CVAT's page "XML annotation format", version 1.1. Each image has its given label as a tag; attributes say what
the model suggests, and whether a person has looked at it.
"""

import json
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from server_app.label_review.contents import ContentError, Contents
from server_app.label_review.decisions import Verdict
from server_app.label_review.formats.base import Format, Found
from server_app.label_review.review import Example, LabelReview, ReviewError

CHECKED, SUGGESTED, SUSPICION, UNSURE = "checked", "suggested", "suspicion", "unsure"
ATTRIBUTES = (
    (SUGGESTED, "text", ""),
    (SUSPICION, "text", ""),
    (CHECKED, "checkbox", "false"),
    (UNSURE, "checkbox", "false"),
)
"""Name, kind of input and default of what a tag says besides its label."""


class Cvat(Format):
    """Annotations as XML, and the labels for the constructor of a task beside them as JSON."""

    name, title, ending = "cvat", "CVAT", ".xml"
    kinds = ("image",)

    def write(self, review: LabelReview, contents: Contents, path: Path) -> dict[Path, bytes]:
        """Return the annotations, and ``*-labels.json`` with the classes and their attributes."""
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        for name, text in (("name", review.model_version), ("size", str(len(review.examples))), ("mode", "annotation")):
            ElementTree.SubElement(task, name).text = text
        labels = ElementTree.SubElement(task, "labels")
        for name in review.class_names:
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = name
            ElementTree.SubElement(label, "type").text = "tag"
            _declare(ElementTree.SubElement(label, "attributes"))
        for number, example in enumerate(review.examples):
            self._add(root, number, example, contents)
        ElementTree.indent(root)
        content = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return {path: content + b"\n", path.with_name(f"{path.stem}-labels.json"): labels_json(review)}

    def read(self, review: LabelReview, content: bytes) -> Found:
        """Read annotations: a tag that has changed, or is marked as checked, is a decision."""
        found = Found()
        for image in _parsed(content).iter("image"):
            name, tags = image.get("name", ""), image.findall("tag")
            example = review.by_name.get(name)
            if example is None:
                found.unknown.append(name)
            elif len(tags) > 1:
                found.notes.append(f"{name}: {len(tags)} tags, so none was taken")
            elif tags:
                facts = {each.get("name"): (each.text or "").strip() == "true" for each in tags[0].iter("attribute")}
                if facts.get(UNSURE):
                    found.changes[name] = (Verdict.UNSURE, "")
                else:
                    self._of_label(found, example, tags[0].get("label", ""), review, bool(facts.get(CHECKED)))
        return found

    def next_step(self, path: Path) -> str:
        """Say how a task takes the annotations."""
        return (
            "In CVAT: a task with the images of the data folder under the paths that they have in it, and labels as in "
            f"{path.stem}-labels.json (constructor, Raw); Upload annotations takes {path.name} as CVAT 1.1. Change "
            f"tags, or set '{CHECKED}'; export as CVAT for images 1.1."
        )

    @staticmethod
    def _add(root: ElementTree.Element, number: int, example: Example, contents: Contents) -> None:
        path = contents.path(number)
        try:
            assert path is not None, "Contents of another kind are refused before"
            with Image.open(path) as image:
                width, height = image.size
        except OSError as error:
            raise ContentError(f"{example.name} cannot be read: {error}") from error
        facts = {"id": str(number), "name": example.name, "width": str(width), "height": str(height)}
        entry = ElementTree.SubElement(root, "image", facts)
        tag = ElementTree.SubElement(entry, "tag", label=example.given, source="file")
        facts = {SUGGESTED: example.suggested, SUSPICION: f"{example.suspicion:g}"}
        facts |= dict.fromkeys((CHECKED, UNSURE), "false")
        for name, text in facts.items():
            ElementTree.SubElement(tag, "attribute", name=name).text = text


def labels_json(review: LabelReview) -> bytes:
    """Return the labels of a task as CVAT's constructor takes them."""
    attributes = [
        {"name": name, "input_type": kind, "mutable": False, "default_value": default, "values": [default]}
        for name, kind, default in ATTRIBUTES
    ]
    labels = [{"name": name, "type": "tag", "attributes": attributes} for name in review.class_names]
    return (json.dumps(labels, indent=1, ensure_ascii=False) + "\n").encode()


def _declare(attributes: ElementTree.Element) -> None:
    """Declare the attributes of a label in the annotations; readers drop what is not declared there."""
    for name, kind, default in ATTRIBUTES:
        entry = ElementTree.SubElement(attributes, "attribute")
        for key, text in (("name", name), ("mutable", "False"), ("input_type", kind), ("default_value", default)):
            ElementTree.SubElement(entry, key).text = text
        ElementTree.SubElement(entry, "values").text = default


def _parsed(content: bytes) -> ElementTree.Element:
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # entities can grow without end, and CVAT writes none
        raise ReviewError("the file declares a document type, which CVAT does not: it is not read")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ReviewError(f"the file is no XML as CVAT exports it: {error}") from error
    if root.tag != "annotations":
        raise ReviewError("the file is no export of CVAT: <annotations> is expected; export as CVAT for images 1.1")
    return root
