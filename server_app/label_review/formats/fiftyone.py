"""FiftyOne: labels.json of its dataset type FiftyOneImageClassificationDataset, beside images that stay where they are.

Format: FiftyOne's page "Loading datasets from disk". A label is found by the path of its image without the ending.
"""

from pathlib import Path, PurePosixPath

from server_app.label_review.contents import Contents
from server_app.label_review.decisions import Verdict
from server_app.label_review.formats.base import Format, Found, json_bytes, json_content, table
from server_app.label_review.review import Example, LabelReview, ReviewError

CHECKED, UNSURE = "checked", "unsure"


class FiftyOne(Format):
    """The given labels as JSON, and beside them those that the model suggests, with its confidence."""

    name, title, ending = "fiftyone", "FiftyOne", ".json"
    kinds = ("image",)

    def write(self, review: LabelReview, contents: Contents, path: Path) -> dict[Path, bytes]:
        """Return the given labels and, as ``*-suggested.json``, the suggested ones."""
        found = _by_key(review).items()
        given = {key: {"label": each.given, "attributes": {CHECKED: False, UNSURE: False}} for key, each in found}
        suggested = {key: {"label": each.suggested, "confidence": each.confidence} for key, each in found}
        classes = list(review.class_names)
        return {
            path: json_bytes({"classes": classes, "labels": given}),
            _suggested(path): json_bytes({"classes": classes, "labels": suggested}),
        }

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
            "In Python with fiftyone: kind = fo.types.FiftyOneImageClassificationDataset; "
            "dataset = fo.Dataset.from_dir(dataset_type=kind, data_path=DATA, "
            f"labels_path={path.name!r}, label_field='given'); dataset.merge_dir(dataset_type=kind, data_path=DATA, "
            f"labels_path={_suggested(path).name!r}, label_field='suggested'). Change given labels, or set their "
            f"attribute {CHECKED!r}; dataset.export(dataset_type=kind, labels_path=..., label_field='given', "
            "include_attributes=True, export_media=False, data_path=DATA, rel_dir=DATA) gives them back. "
            "DATA is the data folder."
        )


def _suggested(path: Path) -> Path:
    return path.with_name(f"{path.stem}-suggested.json")


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
