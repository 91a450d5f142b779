"""FiftyOne: labels.json of its dataset type FiftyOneImageClassificationDataset, beside images that stay where they are.

Format: FiftyOne's page "Loading datasets from disk". A label is found by the path of its image without the ending.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from server_app.label_review.contents import Contents
from server_app.label_review.decisions import Verdict
from server_app.label_review.formats.base import Format, Found, json_bytes, json_content, table
from server_app.label_review.review import Example, LabelReview, ReviewError

CHECKED, UNSURE = "checked", "unsure"


class FiftyOne(Format):
    """The given labels as JSON, with what the model suggests as their attributes."""

    name, title, ending = "fiftyone", "FiftyOne", ".json"
    kinds = ("image",)

    def write(self, review: LabelReview, contents: Contents, path: Path) -> dict[Path, bytes]:
        """Return the labels; the images must be told apart by their paths without endings."""
        labels = {key: _label(example) for key, example in _by_key(review).items()}
        return {path: json_bytes({"classes": list(review.class_names), "labels": labels})}

    def read(self, review: LabelReview, content: bytes) -> Found:
        """Read labels: one that has changed, or has the attribute ``checked``, is a decision."""
        whole, known, found = json_content(content, self.title, dict), _by_key(review), Found()
        classes = [str(name) for name in whole.get("classes") or []]
        if not isinstance(whole.get("labels"), dict):
            raise ReviewError(
                "the file is no export of FiftyOne: it has no 'labels'; see FiftyOneImageClassificationDataset"
            )
        for key, target in whole["labels"].items():
            example = known.get(str(key))
            label, facts = target, table(None)
            if isinstance(target, dict):
                label, facts = target.get("label"), {**table(target.get("attributes")), **target}
            if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(classes):
                label = classes[label]
            if example is None:
                found.unknown.append(str(key))
            elif facts.get(UNSURE):
                found.changes[example.name] = (Verdict.UNSURE, "")
            elif label is not None:
                self._of_label(found, example, str(label), review, bool(facts.get(CHECKED)))
        return found

    def next_step(self, path: Path) -> str:
        """Say how a dataset takes the labels."""
        return (
            "In Python with fiftyone: fo.Dataset.from_dir(dataset_type=fo.types.FiftyOneImageClassificationDataset, "
            f"data_path=<the data folder>, labels_path={path.name!r}, label_field='given'). Change labels or set their "
            f"attribute {CHECKED!r}; dataset.export(..., labels_path=...) of the same type, with rel_dir=<the data "
            "folder>, gives the file back."
        )


def _label(example: Example) -> dict[str, Any]:
    attributes = {
        "suggested": example.suggested,
        "suggested_confidence": example.confidence,
        "suspicion": example.suspicion,
        CHECKED: False,
    }
    return {"label": example.given, "attributes": attributes}


def _by_key(review: LabelReview) -> dict[str, Example]:
    """Return the examples by their paths without endings."""
    found: dict[str, Example] = {}
    for example in review.examples:
        key = str(PurePosixPath(example.name).with_suffix(""))
        if key in found:
            both = f"{found[key].name} and {example.name}"
            raise ReviewError(f"FiftyOne knows images by their names without endings, and {both} have the same: csv")
        found[key] = example
    return found
