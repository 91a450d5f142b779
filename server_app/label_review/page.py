"""Page of a label review: one HTML document with its script, style, list and first thumbnails.

What is not embedded the page asks of the server that it came from, and of no other.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from client_app.mask_regions import EDGES
from server_app.label_review.contents import ContentError, Contents
from server_app.label_review.decisions import Agreement, Decision
from server_app.label_review.review import LOOK_COLUMN, Example, LabelReview
from server_app.report.page import render_page
from server_app.report.text import unbroken

Opinions = Mapping[str, list[tuple[str, Decision]]]
"""By example what others have decided: who, and what."""
MOST_THUMBNAILS, MOST_THUMBNAIL_BYTES = 200, 4_000_000
MOST_READ_BYTES = 60_000_000
MOST_TEXT_CHARACTERS = 4_000_000
SHORT_TEXT = 160
UNSAID = {LOOK_COLUMN, "rank", "picture", "doubted_pixels", *EDGES}
"""Columns of a list that tell a person nothing that the page does not show."""


def review_page(review: LabelReview, contents: Contents, reviewer: str, base: str, nonce: str) -> str:
    """Return the page as HTML.

    ``base`` is the path under which the server answers, and ``nonce`` what marks the page's own script.
    """
    doubted = sum(example.doubted for example in review.examples)
    return render_page(
        "review",
        nonce=nonce,
        figures=[],
        run=review.run,
        client=review.client,
        reviewer=reviewer,
        noun="masks" if review.of_masks else "labels",
        examples=len(review.examples),
        doubted=doubted,
        reading=review.reading,
        warnings=[unbroken(text) for text in review.warnings],
        words=unbroken(review.words),
        of_masks=review.of_masks,
        outlines=contents.has_outlines,
        judge=review.judge,
        classes=len(review.class_names),
        content=page_content(review, contents, base),
    )


def page_content(review: LabelReview, contents: Contents, base: str) -> dict[str, Any]:
    """Return what the page's script works on, as plain values."""
    return {
        "base": base,
        "kind": contents.kind,
        "masks": review.of_masks,
        "reading": review.reading,
        "classes": list(review.class_names),
        "examples": [_entry(example, review.class_names) for example in review.examples],
        "further": sorted({name for example in review.examples for name in example.further} - UNSAID),
        "thumbnails": thumbnails(contents, len(review.examples)),
        "texts": _texts(contents, len(review.examples)),
    }


def state(
    own: Mapping[str, Decision], review: LabelReview, agreements: list[Agreement], theirs: Opinions, problem: str
) -> str:
    """Return what changes while people decide, as JSON: own decisions, agreement, and where others decided otherwise.

    ``theirs`` has of others only what this person has decided too, so that nobody follows them. ``problem`` says why
    not all that others have decided is known.
    """
    numbers = {example.name: number for number, example in enumerate(review.examples)}
    return json.dumps(
        {
            "decisions": {numbers[name]: [each.verdict.value, each.label] for name, each in own.items()},
            "problem": problem,
            "agreement": [
                {"with": each.second, "both": each.both, "alike": each.alike, "kappa": each.kappa}
                for each in agreements
            ],
            "others": {
                numbers[name]: [f"{who}: {decision.outcome}" for who, decision in opinions]
                for name, opinions in theirs.items()
            },
        }
    )


def thumbnails(contents: Contents, examples: int) -> dict[int, str]:
    """Return the first thumbnails as data URLs by the number of their example, up to a number and a size in all."""
    found: dict[int, str] = {}
    size = read = 0
    for number in range(min(examples, MOST_THUMBNAILS) if contents.kind == "image" else 0):
        try:
            path = contents.path(number)
            read += path.stat().st_size if path else 0
            if read > MOST_READ_BYTES:  # large photographs: nobody waits for all of them to be decoded
                break
            content = contents.thumbnail(number)
        except (ContentError, OSError):
            continue
        size += len(content)
        if size > MOST_THUMBNAIL_BYTES:
            break
        kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
        found[number] = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return found


def _texts(contents: Contents, examples: int) -> dict[int, str]:
    """Return the beginnings of texts and rows by the number of their example, up to a number of characters in all."""
    found: dict[int, str] = {}
    left = MOST_TEXT_CHARACTERS
    for number in range(examples if contents.kind in ("text", "fields") else 0):
        try:
            short = contents.text(number) if contents.kind == "text" else _cells(contents.fields(number))
        except ContentError as error:
            short = str(error)
        found[number] = short[:SHORT_TEXT]
        left -= len(found[number])
        if left < 0:
            break
    return found


def _cells(fields: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {cell}" for name, cell in fields)


def _entry(example: Example, classes: tuple[str, ...]) -> list[Any]:
    """Return name, numbers of both classes, confidence, suspicion, doubted and further columns, as the script reads."""
    number = {name: place for place, name in enumerate(classes)}
    given, suggested = number.get(example.given, -1), number.get(example.suggested, -1)
    return [
        example.name,
        given,
        suggested,
        example.confidence,
        example.suspicion,
        int(example.doubted),
        dict(example.further),
    ]
