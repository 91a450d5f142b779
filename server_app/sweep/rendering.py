"""Rendering of a sweep's pictures: as SVG elements for its page, as PNG and PDF files for papers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server_app.report.drawing import draw_files, panel_svg, series_look, svg
from server_app.report.text import View
from server_app.sweep.pictures import Panel, Picture, short
from tasks.files import WriteError, replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "pictures"
DOTS_PER_INCH = 200
MOST_COLUMNS = 4
LEGEND_COLUMN_INCHES, LEGEND_ROW_INCHES = 1.7, 0.21
GRID_MARGINS, GRID_GAPS = (0.62, 0.5, 0.12, 0.32), (0.25, 0.75)
"""Inches around the panels of a grid that is drawn with fixed margins, and between them side by side and below."""
SYMBOL_INCHES = (0.42, 0.16)
PIXELS_PER_INCH, FEWEST_PIXELS_PER_INCH = 92, 76
"""Width on the page of a drawing that is not made of small panels; on a narrow screen it is less, then it scrolls."""
PAPER = {"pdf.fonttype": 42}  # text that publishers can embed


@dataclass(frozen=True)
class Grid:
    """Rows and columns of the panels of a picture."""

    rows: int
    columns: int

    @classmethod
    def of(cls, picture: Picture) -> "Grid":
        """Return the grid of a file: at most four panels side by side."""
        count = len(picture.panels)
        rows = ceil(count / MOST_COLUMNS)
        return cls(rows, ceil(count / rows))


def picture_view(picture: Picture) -> View:
    """Return what the page shows of a picture: panels one by one, so that they wrap on a narrow screen."""
    width = picture.inches[0]
    return {
        "name": picture.name,
        "title": picture.title,
        "note": picture.note,
        "panels": [_panel_view(picture, place, panel) for place, panel in enumerate(picture.panels)],
        "legend": [(option, _symbol(picture, place)) for place, option in enumerate(picture.legend)],
        "widths": () if picture.margins else (round(width * FEWEST_PIXELS_PER_INCH), round(width * PIXELS_PER_INCH)),
    }


def _panel_view(picture: Picture, place: int, panel: Panel) -> View:
    name = f"{picture.name}-{place}" if panel.title else picture.name
    if picture.margins:
        return {"title": panel.title, "svg": panel_svg(name, panel.draw, picture.inches, picture.margins)}
    return {"title": panel.title, "svg": svg(name, panel.draw, picture.inches)}


def _symbol(picture: Picture, place: int) -> str:
    """Return line and marker of a series as a little drawing for the legend of the page."""

    def draw(axes: "Axes") -> None:
        axes.set_axis_off()
        axes.plot([0, 1, 2], [0, 0, 0], markevery=[1], linewidth=1.4, markersize=4.5, **series_look(place))
        axes.set(xlim=(0, 2), ylim=(-1, 1))

    return panel_svg(f"{picture.name}-symbol-{place}", draw, SYMBOL_INCHES, (0.0, 1e-9, 0.0, 0.0))


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> list[Path]:
    """Write each picture as PNG and PDF into ``folder / pictures``, which is made if needed, and return the paths.

    Raises
    ------
    WriteError
        If one cannot be written.
    """
    target = folder / FOLDER
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise WriteError(error.errno, error.strerror, str(target)) from error
    return [path for picture in pictures for path in _write(target, picture)]


def _write(target: Path, picture: Picture) -> list[Path]:
    grid = Grid.of(picture)
    legend = LEGEND_ROW_INCHES * ceil(len(picture.legend) / _legend_columns(picture, grid))
    width, height = picture.inches[0] * grid.columns, (picture.inches[1] + 0.15) * grid.rows + legend
    left, bottom, right, top = GRID_MARGINS
    margins = (left, bottom, right, top + legend) if picture.margins else ()
    files = (
        {"format": "png", "dpi": DOTS_PER_INCH, "metadata": {"Software": None}},
        {"format": "pdf", "metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
    )
    drawn = draw_files((width, height), lambda figure: _draw_figure(figure, picture, grid), PAPER, files, margins)
    paths = [target / f"{picture.name}.{saving['format']}" for saving in files]
    for path, content in zip(paths, drawn, strict=True):
        replace_file(path, content)
    return paths


def _legend_columns(picture: Picture, grid: Grid) -> int:
    return max(1, min(len(picture.legend), int(picture.inches[0] * grid.columns / LEGEND_COLUMN_INCHES)))


def _draw_figure(figure: "Figure", picture: Picture, grid: Grid) -> None:
    """Draw all panels with one legend above them."""
    shared = bool(picture.legend)
    places = list(figure.subplots(grid.rows, grid.columns, sharex=shared, sharey=shared, squeeze=False).flat)
    if picture.margins:
        figure.subplots_adjust(wspace=GRID_GAPS[0] / picture.inches[0], hspace=GRID_GAPS[1] / picture.inches[1])
    count = len(picture.panels)
    for place, (axes, panel) in enumerate(zip(places, picture.panels, strict=False)):
        panel.draw(axes)
        axes.set_title(panel.title)
        if not shared:
            continue
        label = axes.get_xlabel()
        axes.label_outer()
        if place + grid.columns >= count:  # below it there is none
            axes.set_xlabel(label)
            axes.tick_params(labelbottom=True)
    for axes in places[count:]:
        axes.set_axis_off()
    if picture.legend:
        from matplotlib.lines import Line2D

        lines = [Line2D([], [], linewidth=1.4, **series_look(place)) for place in range(len(picture.legend))]
        names = [short(option) for option in picture.legend]
        corner: Any = "upper left" if picture.margins else "outside upper left"
        figure.legend(lines, names, loc=corner, ncols=_legend_columns(picture, grid), fontsize=9)
