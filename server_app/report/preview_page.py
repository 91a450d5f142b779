"""Preview page: the picture of all clients, and one HTML file that needs nothing else."""

import base64
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from server_app.report.drawing import FIRST, INK, SECOND, draw_figure, heat_map, name_ticks
from server_app.report.page import render_page
from server_app.report.preview_data import Survey, choices, main_numbers, span, title
from server_app.report.text import View, percent, single_line, unbroken
from tasks.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

DOTS_PER_INCH = 160
PIXELS_PER_INCH = 76
"""Smallest width of the picture on the page: below it scrolls, so that its texts stay legible."""
CELL_INCHES = 0.36
CHARACTER_INCHES = 0.08
LONGEST_NAME, LONGEST_LINE = 16, 200
COUNT_COLOUR, SHARE_COLOUR = "#5fae8f", "#d98f63"
"""Colours of the darkest cells, light enough for dark numbers on them."""
Box = tuple[float, float]


def draw_picture(survey: Survey) -> tuple[bytes, float]:
    """Return the picture as PNG, and its width in inches; equal surveys give equal pictures.

    Raises
    ------
    ImportError
        If matplotlib is not installed (extra ``report``).
    """
    clients, classes = survey.counts.shape
    names = CHARACTER_INCHES * max(map(len, _short(survey.row_names)))
    widths = _inches(clients, 6.0, 14.0), _inches(classes, 3.6, 8.0)
    heights = _inches(len(survey.transitions), 2.6, 8.0), 1.7, 1.9

    def draw(figure: "Figure") -> None:
        grid = figure.add_gridspec(3, 2, width_ratios=widths, height_ratios=heights)
        _draw_clients(survey, figure, grid, (widths[0], heights[0]))
        _draw_transitions(survey, figure.add_subplot(grid[0, 1]), (widths[1], heights[0]))
        _write_summary(survey, figure.add_subplot(grid[1:, 1]), columns=int(widths[1] / CHARACTER_INCHES))
        figure.suptitle(title(survey), x=0.01, ha="left", fontsize=13, fontweight="bold")

    size = sum(widths) + 2 * names + 1.6, sum(heights) + names + 1.5
    small_ticks = {"xtick.labelsize": 9, "ytick.labelsize": 9}
    metadata = {"Software": None}
    return draw_figure(size, draw, small_ticks, format="png", dpi=DOTS_PER_INCH, metadata=metadata), size[0]


def shades(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return how dark the cell of each count is, in [0, 1]: its square root, so that small counts can be seen."""
    return np.asarray(np.sqrt(counts / max(counts.max(), 1)))


def _inches(cells: int, least: float, most: float) -> float:
    return min(max(CELL_INCHES * cells, least), most)


def _draw_clients(survey: Survey, figure: "Figure", grid: "GridSpec", box: Box) -> None:
    """Draw counts, sizes and wrong labels in one column, with the clients on the common axis."""
    counts = figure.add_subplot(grid[0, 0])
    sizes, rates = figure.add_subplot(grid[1, 0], sharex=counts), figure.add_subplot(grid[2, 0], sharex=counts)
    texts = [str(count) if count else "" for count in survey.counts.T.flat]
    heat_map(counts, shades(survey.counts.T), COUNT_COLOUR, texts, box)
    name_ticks(counts.yaxis, _short(survey.class_names))
    most = survey.counts.max()
    counts.set(title=f"Labels of each true class, before the noise (darkest: {most})", ylabel="true class")
    clients = np.arange(len(survey.examples))
    sizes.bar(clients, survey.examples, color=FIRST, width=0.8)
    sizes.set(title="Examples of each client", ylabel="examples")
    rates.bar(clients, 100 * survey.realised, color=SECOND, width=0.8, label="realised")
    if survey.wanted is not None:
        left, right = clients - 0.5, clients + 0.5
        rates.hlines(100 * survey.wanted, left, right, color=INK, linewidth=1.4, label="wanted by the distribution")
    rates.set(title=f"Wrong labels of each client (overall {percent(survey.overall)})", ylabel="%", ylim=(0, 100))
    rates.set_xlabel("client")
    rates.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2, fontsize=9)
    for axes in (sizes, rates):
        axes.grid(visible=False, axis="x")
    name_ticks(rates.xaxis, [str(client) for client in clients])


def _draw_transitions(survey: Survey, axes: "Axes", box: Box) -> None:
    matrix = survey.transition_matrix
    texts = [f"{100 * share:.0f}" if share >= 0.005 else "" for share in matrix.flat]
    heat_map(axes, matrix, SHARE_COLOUR, texts, box)
    name_ticks(axes.yaxis, _short(survey.row_names))
    name_ticks(axes.xaxis, _short(survey.class_names))
    axes.tick_params(axis="x", labelrotation=90 if max(map(len, survey.class_names)) > 2 else 0)
    axes.set(title="Given labels of each true class (%)", xlabel="given label", ylabel="true class")


def _write_summary(survey: Survey, axes: "Axes", columns: int) -> None:
    said = {**choices(survey), **main_numbers(survey)}
    lines = [single_line(f"{name}: {text}", LONGEST_LINE) for name, text in said.items()]
    text = "\n\n".join(textwrap.fill(unbroken(line), columns) for line in lines)
    axes.set_axis_off()
    axes.text(0, 1, text, ha="left", va="top", fontsize=9.5, transform=axes.transAxes, in_layout=False)


def _short(names: Sequence[str]) -> list[str]:
    return [single_line(name, LONGEST_NAME) for name in names]


def write_preview(survey: Survey, folder: Path, name: str, warnings: Sequence[str] = ()) -> list[Path]:
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
    replace_file(paths[1], render(survey, picture, width, warnings).encode())
    return paths


def render(survey: Survey, picture: bytes, width: float, warnings: Sequence[str] = ()) -> str:
    """Return the HTML page of a survey with its picture, a PNG ``width`` inches wide."""
    return render_page(
        "preview",
        title=title(survey),
        warnings=warnings,
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
    distribution = (
        " Wanted is the rate that the distribution gives to a client. How many labels that makes wrong is up to the "
        "noise: it may draw by chance, leave some classes alone, or draw the true label again."
    )
    return {
        "clients": clients,
        "has_wanted": wanted is not None,
        "clients_note": note + distribution * (wanted is not None),
    }


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
