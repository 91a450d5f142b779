"""Drawing: the one look of all charts and pictures (matplotlib, extra ``report``), and figures as inline SVG.

Whatever draws raises ``ImportError`` without matplotlib.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID, FIRST, SECOND = "#1c2430", "#8a94a3", "#dfe3e8", "#0b6e4f", "#b4582a"
CELL_INK = "#1a222e"
"""Of numbers on a coloured cell, which is as light on a dark page."""
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b4a9e", INK)
"""Colours of series that the colour-blind can tell apart: Okabe and Ito, Color Universal Design, 2008; violet and ink
stand for their yellow, which is too faint on white, and their black."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "d", "h", "8", "H", "|")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
VARIABLES = {
    **{colour: f"series-{place}" for place, colour in enumerate(PALETTE)},
    INK: "ink",
    FAINT: "faint",
    GRID: "rule",
    FIRST: "good",
    SECOND: "warm",
}
"""Colours that are other ones on a dark page, with the names of the variables of its style sheet."""
SIZE_INCHES = (4.6, 2.75)
PANEL_MARGINS = (0.55, 0.42, 0.08, 0.08)
"""Left, bottom, right and top, in inches: room for ticks and labels of axes, and for no title."""
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
MOST_MARKERS = 40
SHORT_LEGEND = 34
"""Characters of three labels that fit beside each other, also in the wider letters of some pages' fonts."""
SMALLEST_POINTS, LARGEST_POINTS = 5.0, 9.0
"""Font sizes of the texts in the cells of a heat map; where they would be smaller there are none."""
MOST_TICKS = 40
"""Rows or columns beyond which only some are named."""
RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # real text: it takes the page's font, can be searched, and stays small
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 3.5,
    "text.parse_math": False,  # a name may hold dollar signs
}


@dataclass(frozen=True)
class Chart:
    """One drawing as an SVG element, its title and how to read it."""

    title: str
    svg: str
    note: str


def series_look(place: int) -> dict[str, Any]:
    """Return colour, marker and dashes of the series at a place; 16 differ even without colour.

    >>> series_look(1)
    {'color': '#d55e00', 'marker': 's', 'linestyle': (0, (5, 1.6))}
    """
    return {
        "color": PALETTE[place % len(PALETTE)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
    }


def line(axes: "Axes", points: Sequence[tuple[float, float]], label: str, **look: Any) -> None:
    """Draw a line through the points that there are, each with a marker unless they are many."""
    if points:
        few = {"marker": look.get("marker", "o") if len(points) <= MOST_MARKERS else ""}
        axes.plot(*zip(*points, strict=True), label=label, **{**look, **few})


def over_rounds(name: str, draw: Callable[["Axes"], None]) -> str:
    """Return one drawing whose horizontal axis is the round; see :func:`svg`."""

    def with_rounds(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        draw(axes)
        axes.set_xlabel("round (0 = before training)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))

    return svg(name, with_rounds)


def svg(name: str, draw: Callable[["Axes"], None], inches: tuple[float, float] = SIZE_INCHES) -> str:
    """Return one drawing as an SVG element for an HTML page; equal drawings give equal text."""

    def with_legend(figure: "Figure") -> None:
        axes = figure.add_subplot()
        draw(axes)
        if labels := axes.get_legend_handles_labels()[1]:
            columns = 3 if len(labels) == 3 and sum(map(len, labels)) <= SHORT_LEGEND else 2
            figure.legend(loc="outside upper left", ncols=columns, fontsize=9, columnspacing=1.2)

    look = {"svg.hashsalt": name}
    drawn = draw_figure(inches, with_legend, look, format="svg", transparent=True, metadata=NO_METADATA)
    return _for_page(name, drawn.decode())


def draw_figure(
    inches: tuple[float, float], draw: Callable[["Figure"], None], look: Mapping[Any, Any], **saving: Any
) -> bytes:
    """Return a figure in the look of all drawings, as the file that ``Figure.savefig`` makes with ``saving``.

    ``inches`` are its width and height; ``look`` are matplotlib's parameters that differ from those of other drawings.
    """
    return draw_files(inches, draw, look, [saving])[0]


def draw_files(
    inches: tuple[float, float],
    draw: Callable[["Figure"], None],
    look: Mapping[Any, Any],
    files: Sequence[Mapping[str, Any]],
    margins: Sequence[float] = (),
) -> list[bytes]:
    """Return one figure as several files, see :func:`draw_figure`.

    With ``margins`` (left, bottom, right, top, in inches) the axes have these, which takes a quarter of the time that
    the search for the least ones takes.
    """
    import matplotlib  # itself, not only its parts: this is where a missing installation shows
    from matplotlib.figure import Figure

    found = []
    with matplotlib.rc_context({**RC, **look}):
        figure = Figure(figsize=inches, layout=None if margins else "constrained")
        if margins:
            (width, height), (left, bottom, right, top) = inches, margins
            figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
        draw(figure)
        for saving in files:
            target = io.BytesIO()
            figure.savefig(target, **saving)
            figure.set_layout_engine("none")  # what the first one found fits the others
            found.append(target.getvalue())
    return found


def heat_map(
    axes: "Axes", shades: npt.NDArray[np.float64], colour: str, texts: Sequence[str], inches: tuple[float, float]
) -> None:
    """Colour cells by ``shades`` (R, C) in [0, 1]; write one of the R * C texts in each if that will be legible.

    ``inches`` are the width and height that the axes will have.
    """
    from matplotlib.colors import LinearSegmentedColormap

    rows, columns = shades.shape
    palette = LinearSegmentedColormap.from_list("shades", ["#ffffff", colour])
    axes.imshow(shades, cmap=palette, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.spines[:].set(visible=True, color=FAINT)
    axes.grid(visible=False)
    longest = max(1, *map(len, texts))
    size = min(LARGEST_POINTS, 72 * 0.6 * inches[1] / rows, 72 * 1.4 * inches[0] / columns / longest)
    if size < SMALLEST_POINTS:
        return
    for place, text in enumerate(texts):
        row, column = divmod(place, columns)
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=CELL_INK)


def name_ticks(axis: Any, names: Sequence[str]) -> None:
    """Name every row or column of an axis, or some at even distances where they are many."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, len(names)) if len(names) / step <= MOST_TICKS)
    places = range(0, len(names), step)
    axis.set_ticks(places, [names[place] for place in places])


def panel_svg(
    name: str, draw: Callable[["Axes"], None], inches: tuple[float, float], margins: Sequence[float] = PANEL_MARGINS
) -> str:
    """Return a small drawing without legend as an SVG element for an HTML page; see :func:`svg`."""
    look = {"svg.hashsalt": name, "font.size": 9, "axes.labelsize": 9}
    saving = {"format": "svg", "transparent": True, "metadata": NO_METADATA}
    [drawn] = draw_files(inches, lambda figure: draw(figure.add_subplot()), look, [saving], margins)
    return _for_page(name, drawn.decode())


def _for_page(name: str, svg: str) -> str:
    """Cut off the XML prologue and the style rule that would act on the page; make ids unique on the page.

    Colours become variables of the page's style sheet, so that the drawing fits a light and a dark page.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<style.*?</style>", "", element, flags=re.DOTALL)
    element = element.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")
    for reference in (' id="', "url(#", ' href="#'):
        element = element.replace(reference, f"{reference}{name}-")
    for colour, variable in VARIABLES.items():
        element = element.replace(colour, f"var(--{variable})")
    return element.replace("<svg", f'<svg role="img" aria-label="chart: {name}"', 1)
