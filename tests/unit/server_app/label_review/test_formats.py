"""Formats of annotation tools: what goes out has the published form, and what comes back means what was decided."""

import csv
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from server_app.label_review.contents import Contents
from server_app.label_review.decisions import DecisionFile, Verdict
from server_app.label_review.formats import FORMATS
from server_app.label_review.formats.base import guess
from server_app.label_review.review import LabelReview, ReviewError
from tests.label_reviews import review_of
from tests.site_data import WORDS

RIGHT, WRONG, UNSURE = Verdict.RIGHT, Verdict.WRONG, Verdict.UNSURE


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> LabelReview:
    return review_of(tmp_path_factory.mktemp("formats"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> LabelReview:
    return review_of(tmp_path_factory.mktemp("texts"), "text-csv")


def exported(review: LabelReview, name: str) -> dict[Path, bytes]:
    return FORMATS[name].write(review, Contents(review), Path("out").with_suffix(FORMATS[name].ending))


def document(review: LabelReview, name: str) -> Any:
    return json.loads(exported(review, name)[Path("out.json")])


def read(review: LabelReview, name: str, content: object) -> dict[str, tuple[Verdict, str]]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    assert guess(data) == name
    return FORMATS[name].read(review, data).changes


def expected(review: LabelReview) -> dict[str, tuple[Verdict, str]]:
    """The first label is wrong, the second is right, the third unsure."""
    first, second, third = review.examples[:3]
    return {first.name: (WRONG, first.suggested), second.name: (RIGHT, ""), third.name: (UNSURE, "")}


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_nobody_has_worked_on_decides_nothing(review: LabelReview, name: str):
    path, content = next(iter(exported(review, name).items()))
    assert path == Path(f"out{FORMATS[name].ending}")
    assert guess(content) == name
    assert FORMATS[name].read(review, content).changes == {}


@pytest.mark.parametrize("which", ["review", "texts"])
def test_label_studio(which: str, request: pytest.FixtureRequest):
    review: LabelReview = request.getfixturevalue(which)
    tasks = document(review, "label-studio")
    first, [prediction] = review.examples[0], tasks[0]["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("winnow pilot round 5", first.confidence)
    [result] = prediction["result"]
    assert (result["type"], result["value"]) == ("choices", {"choices": [first.suggested]})
    view = ElementTree.fromstring(exported(review, "label-studio")[Path("out.xml")])
    [shown] = [each for each in view if each.tag in ("Image", "Text")]
    groups = {each.get("name"): each for each in view.iter("Choices")}
    assert result["from_name"] in groups
    assert groups[result["from_name"]].get("toName") == shown.get("name") == result["to_name"]
    assert [each.get("value") for each in groups["label"]] == [*review.class_names]
    assert str(shown.get("value")).removeprefix("$") in tasks[0]["data"]
    for place, answer in enumerate(
        ([("label", first.suggested)], [("label", review.examples[1].given)], [("doubt", "unsure")])
    ):
        chosen = [{"from_name": name, "type": "choices", "value": {"choices": [value]}} for name, value in answer]
        tasks[place]["annotations"] = [{"result": chosen, "was_cancelled": False}]
    other = {"from_name": "label", "type": "choices", "value": {"choices": [review.examples[3].given]}}
    tasks[3]["annotations"] = [{"result": [other], "was_cancelled": True}]
    assert read(review, "label-studio", tasks) == expected(review)
    tasks[1]["annotations"] += tasks[0]["annotations"]
    found = FORMATS["label-studio"].read(review, json.dumps(tasks).encode())
    assert review.examples[1].name not in found.changes
    assert "differ" in found.notes[0]


def test_label_studio_names_the_file_of_an_image(review: LabelReview):
    place = document(review, "label-studio")[0]["data"]["image"]
    assert place.startswith("/data/local-files/?d=")
    assert Path("/" + place.partition("=")[2]).read_bytes() == Contents(review).path(0).read_bytes()  # type: ignore[union-attr]


def test_cvat(review: LabelReview):
    files = exported(review, "cvat")
    root = ElementTree.fromstring(files[Path("out.xml")])
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    labels = json.loads(files[Path("out-labels.json")])
    assert (
        [each["name"] for each in labels]
        == [each.findtext("name") for each in root.iter("label")]
        == ["dark", "bright"]
    )
    images = root.findall("image")
    assert [each.get("name") for each in images] == [each.name for each in review.examples]
    assert {(each.get("width"), each.get("height")) for each in images} == {("12", "12")}
    known = {each["name"] for each in labels[0]["attributes"]}
    assert {each.get("name") for each in root.findall("image/tag/attribute")} == known
    for label in root.iter("label"):  # a reader such as Datumaro drops attributes that no label declares
        assert {each.findtext("name") for each in label.iter("attribute")} == known
    images[0].find("tag").set("label", review.examples[0].suggested)  # type: ignore[union-attr]
    for place, name in ((1, "checked"), (2, "unsure")):
        images[place].find(f"tag/attribute[@name='{name}']").text = "true"  # type: ignore[union-attr]
    assert read(review, "cvat", ElementTree.tostring(root)) == expected(review)


def test_argilla(texts: LabelReview):
    records = document(texts, "argilla")
    first = texts.examples[0]
    assert records[0]["id"] == first.name
    assert records[0]["suggestions"] == {
        "label": {"value": first.suggested, "score": first.confidence, "agent": "winnow pilot round 5"}
    }
    assert set(records[0]["fields"]["text"].split()) <= {*WORDS["dark"].split(), *WORDS["bright"].split()}
    # Its own to_json says of a response the value and the user, and of the record whether it is completed.
    answers = (
        ("completed", first.suggested),
        ("completed", texts.examples[1].given),
        ("completed", None),
        ("pending", "dark"),
    )
    for place, (status, value) in enumerate(answers):
        records[place] |= {"responses": {"label": [{"value": value, "user_id": "u"}]}, "status": status}
    unsure = texts.examples[2].name
    assert read(texts, "argilla", records) == {name: made for name, made in expected(texts).items() if name != unsure}
    records[0]["responses"]["label"].append({"value": first.given, "user_id": "v"})
    found = FORMATS["argilla"].read(texts, json.dumps(records).encode())
    assert first.name not in found.changes
    assert [note.split(":")[0] for note in found.notes] == [
        first.name,
        "1 records have responses and are not completed, so they were left aside",
    ]


def test_fiftyone(review: LabelReview):
    whole = document(review, "fiftyone")
    assert whole["classes"] == ["dark", "bright"]
    keys = [each.name.removesuffix(".png") for each in review.examples]
    assert [*whole["labels"]] == keys
    suggested = json.loads(exported(review, "fiftyone")[Path("out-suggested.json")])["labels"]
    first = review.examples[0]
    assert suggested[keys[0]] == {"label": first.suggested, "confidence": first.confidence}
    whole["labels"][keys[0]] = whole["classes"].index(
        review.examples[0].suggested
    )  # a number, as it exports by default
    whole["labels"][keys[1]]["attributes"]["checked"] = True
    whole["labels"][keys[2]]["unsure"] = True
    assert read(review, "fiftyone", whole) == expected(review)


def test_spreadsheet(review: LabelReview):
    [content] = exported(review, "csv").values()
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    rows[0]["label"] = rows[0]["suggested"]
    rows[1]["decision"], rows[2]["decision"] = "Right", "unsure"
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]])
    writer.writeheader()
    writer.writerows(rows)
    assert read(review, "csv", text.getvalue().encode()) == expected(review)
    with pytest.raises(ReviewError, match="line 2: the label is called right"):
        FORMATS["csv"].read(review, text.getvalue().replace(",,", ",right,", 1).encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("label-studio", b"{}"),
        ("label-studio", b"[" * 10**5),
        ("cvat", b"<x/>"),
        ("cvat", b'<!DOCTYPE a [<!ENTITY b "c">]><annotations/>'),
        ("argilla", b"nonsense"),
        ("fiftyone", b'{"classes": []}'),
        ("csv", b"id,given\nx,y\n"),
        ("csv", b"\xff\xfe"),
    ],
)
def test_what_no_tool_has_written_is_refused_in_words(review: LabelReview, name: str, content: bytes):
    with pytest.raises(ReviewError, match=r"^the (file|table) "):
        FORMATS[name].read(review, content)


def test_a_class_that_the_task_does_not_have_is_named(review: LabelReview):
    whole = document(review, "fiftyone")
    whole["labels"][review.examples[0].name.removesuffix(".png")]["label"] = "grey"
    with pytest.raises(ReviewError, match="'grey' is no class of this task; classes: dark, bright"):
        FORMATS["fiftyone"].read(review, json.dumps(whole).encode())


def test_what_a_tool_cannot_show_is_refused_before(texts: LabelReview, tmp_path: Path):
    masks = review_of(tmp_path, "image-masks")
    for name, review, kind in (("cvat", texts, "text"), ("fiftyone", texts, "text"), ("label-studio", masks, "image")):
        with pytest.raises(ReviewError, match="csv"):
            FORMATS[name].check(review, kind)  # type: ignore[arg-type]
    FORMATS["csv"].check(masks, "image")


def test_a_spreadsheet_goes_out_with_the_decisions_so_far(tmp_path: Path):
    review = review_of(tmp_path)
    DecisionFile(review).decide(expected(review))
    [content] = exported(review, "csv").values()
    assert FORMATS["csv"].read(review, content).changes == expected(review)
