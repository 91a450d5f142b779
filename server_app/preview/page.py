"""The preview as files: the picture, and one HTML page that needs nothing else."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from server_app.preview.picture import draw_picture, shades
from server_app.preview.survey import Survey
from server_app.preview.words import choices, span, title
from server_app.report.page import render_page
from server_app.report.views import unbroken
from server_app.report.wording import percent
from tasks.writing import replace_file

View = dict[str, Any]
PIXELS_PER_INCH = 76
"""Smallest width of the picture on the page: below it scrolls, so that its texts stay legible."""


def write_preview(survey: Survey, folder: Path, name: str, remarks: Sequence[str] = ()) -> list[Path]:
    """Write ``name.png`` and ``name.html`` into a folder, which is made if needed, and return their absolute paths.

    Raises
    ------
    ImportError
        If matplotlib is not installed (extra ``report``).
    OSError
        If the folder cannot be written to.
    """
    picture, width = draw_picture(survey)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder.absolute() / f"{name}{ending}" for ending in (".png", ".html")]
    replace_file(paths[0], picture)
    replace_file(paths[1], render(survey, picture, width, remarks).encode())
    return paths


def render(survey: Survey, picture: bytes, width: float, remarks: Sequence[str] = ()) -> str:
    """Return the HTML page of a survey with its picture, a PNG ``width`` inches wide."""
    return render_page(
        "preview",
        title=title(survey),
        remarks=remarks,
        figures=key_figures(survey),
        picture=base64.b64encode(picture).decode(),
        picture_width=round(PIXELS_PER_INCH * width),
        class_names=survey.class_names,
        choices=choices(survey).items(),
        **client_section(survey),
        **transition_section(survey),
    )


def key_figures(survey: Survey) -> list[View]:
    """Return the key figures: how many clients and examples, and how many wrong labels."""
    held = (survey.counts > 0).sum(axis=1)
    rates = survey.realised
    figures = [
        ("Clients", str(len(survey.examples)), "simulated"),
        ("Examples", str(survey.examples.sum()), f"{span(survey.examples)} a client"),
        ("Classes", str(len(survey.class_names)), f"{span(held)} at a client"),
        ("Wrong labels", percent(survey.overall), "of all labels"),
    ]
    if rates.any():
        figures.append(("Worst client", percent(rates.max()), f"wrong labels, client {rates.argmax()}"))
    return [{"name": name, "text": unbroken(text), "note": note} for name, text, note in figures]


def client_section(survey: Survey) -> View:
    """Return the table of clients and the sentence about it."""
    most, dark = survey.examples.max(), shades(survey.counts)
    wanted = survey.wanted
    clients = [
        {
            "number": client,
            "examples": survey.examples[client],
            "size": survey.examples[client] / most,
            "wanted": unbroken(percent(None if wanted is None else wanted[client])),
            "realised": unbroken(percent(survey.realised[client])),
            "rate": survey.realised[client],
            "cells": _cells([str(count) if count else "" for count in counts], dark[client]),
        }
        for client, counts in enumerate(survey.counts)
    ]
    note = "The coloured cells count the labels of each true class, before the noise; empty: none."
    law = (
        " Wanted is the rate that the law gives to a client. How many labels that makes wrong is up to the noise: it "
        "may draw by chance, leave some classes alone, or draw the true label again."
    )
    return {"clients": clients, "has_wanted": wanted is not None, "clients_note": note + law * (wanted is not None)}


def transition_section(survey: Survey) -> View:
    """Return the rows of the transition matrix and the sentence about it."""
    matrix, totals = survey.transition_matrix, survey.transitions.sum(axis=1)
    rows = [
        {
            "name": name,
            "total": total,
            "cells": _cells([f"{100 * share:.1f}" if share else "" for share in shares], shares),
        }
        for name, total, shares in zip(survey.row_names, totals, matrix, strict=True)
    ]
    note = "In percent, over all clients: each row says which labels the examples of one true class were given."
    outside = " Examples from outside the task belong to no class, so none of their labels is right."
    return {"transitions": rows, "transitions_note": note + outside * (len(rows) > len(survey.class_names))}


def _cells(texts: Sequence[str], dark: npt.NDArray[np.float64]) -> list[View]:
    return [{"text": text, "shade": f"{shade:.3g}"} for text, shade in zip(texts, dark, strict=True)]
