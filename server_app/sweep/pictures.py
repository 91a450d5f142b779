"""Pictures of a sweep: a measure over the rounds and against noise, each as panels that share a legend.

For the page each panel is drawn by itself, for a file all together. What draws raises ``ImportError`` without
matplotlib (extra ``report``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server_app.report.drawing import PANEL_MARGINS, series_look
from server_app.report.text import is_share, measure_title, single_line
from server_app.sweep.curves import Curves, span, with_room
from server_app.sweep.results import BEST_MARK, Comparison, Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes"], None]
PANEL_INCHES, WIDE_INCHES = (2.75, 2.0), (6.4, 3.4)
MOST_BANDS = 8
"""Options up to which all curves have bands; of more only the best one and the baseline, or none could be seen."""
LONGEST_NAME = 28
NOISE = "noise"


@dataclass(frozen=True)
class Panel:
    """One drawing of a picture; its title is the setting that it shows, empty where it is the only one."""

    title: str
    draw: Draw


@dataclass(frozen=True)
class Picture:
    """A picture and how to read it; the options of its ``legend`` are in the order of their looks.

    ``inches`` are width and height of a panel; with ``margins`` (left, bottom, right, top, in inches) those of the page
    are drawn more quickly.
    """

    name: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    legend: tuple[str, ...] = ()
    inches: tuple[float, float] = PANEL_INCHES
    margins: tuple[float, ...] = ()


def scaled(comparison: Comparison, value: float) -> float:
    """Return a value as it is drawn: shares in percent."""
    return 100 * value if is_share(comparison.measure) else value


def axis_label(comparison: Comparison) -> str:
    """Return the label of an axis of values."""
    return measure_title(comparison.measure) + (" (%)" if is_share(comparison.measure) else "")


def short(text: str) -> str:
    """Return a name of the user's as it fits into a drawing."""
    return single_line(text, LONGEST_NAME)


def progress_picture(comparison: Comparison, drawn: Curves) -> Picture | None:
    """Return the curves over the rounds, a panel for each setting; None if no run has any."""
    shown = [setting for setting in comparison.settings if any(setting == place[1] for place in drawn)]
    if not shown:
        return None
    limits = [scaled(comparison, value) for value in span(drawn.values())]
    panels = tuple(Panel(comparison.title(one), _curve_drawer(comparison, drawn, one, limits)) for one in shown)
    cut = any(scaled(comparison, min(curve.low)) < limits[0] for curve in drawn.values())
    note = f"Lines: mean over the seeds, on test data. {_band_note(comparison, drawn)}"
    note += " Some curves start below the axis, so that the differences at the end can be seen." if cut else ""
    title = f"{measure_title(comparison.measure)} over the rounds"
    return Picture("progress", title, note, panels, comparison.options, margins=PANEL_MARGINS)


def _band_note(comparison: Comparison, drawn: Curves) -> str:
    if all(curve.runs < 2 for curve in drawn.values()):
        return "With one seed there are no bands."
    which = "Bands" if len(comparison.options) <= MOST_BANDS else "Bands, of the best option and the baseline alone"
    return f"{which}: one standard deviation to each side."


def _curve_drawer(comparison: Comparison, drawn: Curves, setting: Setting, limits: Sequence[float]) -> Draw:
    banded = banded_options(comparison)

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        for place, option in enumerate(comparison.options):
            curve, look = drawn.get((option, setting)), series_look(place)
            if curve is None:
                continue
            low, means, high = ([scaled(comparison, v) for v in line] for line in (curve.low, curve.means, curve.high))
            if curve.runs > 1 and option in banded:
                axes.fill_between(curve.rounds, low, high, color=look["color"], alpha=0.15, linewidth=0)
            step = max(1, len(means) // 5)
            axes.plot(curve.rounds, means, markevery=(place % step, step), linewidth=1.4, **look)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
        axes.set(xlabel="round", ylabel=axis_label(comparison), ylim=limits)

    return draw


def banded_options(comparison: Comparison) -> set[str]:
    """Return the options whose curves have bands."""
    if len(comparison.options) <= MOST_BANDS:
        return set(comparison.options)
    return {comparison.baseline, *(option for option, one in comparison.overall.items() if one.mark == BEST_MARK)}


def noise_picture(comparison: Comparison) -> Picture | None:
    """Return the values against the options of one axis: the noise, else the first one that has several.

    There is a panel for each choice of options of the other axes. None if no axis has several options.
    """
    several = [
        place for place in range(len(comparison.axes)) if len({setting[place] for setting in comparison.settings}) > 1
    ]
    values = [value for score in comparison.cells.values() for value in score.values.values()]
    if not several or not values:
        return None
    place = next((place for place in several if comparison.axes[place] == NOISE), several[0])
    ticks = list(dict.fromkeys(setting[place] for setting in comparison.settings))
    others = list(dict.fromkeys(setting[:place] + setting[place + 1 :] for setting in comparison.settings))
    limits = [scaled(comparison, value) for value in with_room(values)]
    rows = [[(*rest[:place], tick, *rest[place:]) for tick in ticks] for rest in others]
    panels = tuple(
        Panel(", ".join(rest), _noise_drawer(comparison, place, row, limits))
        for rest, row in zip(others, rows, strict=True)
    )
    title = f"{measure_title(comparison.measure)} by {comparison.axes[place]}"
    note = (
        "Points: mean over the seeds. Bars: interval that covers the mean with 95 %, cut off at the range of all runs."
    )
    return Picture("noise", title, note, panels, comparison.options, PANEL_INCHES if len(panels) > 2 else WIDE_INCHES)


def _noise_drawer(comparison: Comparison, place: int, settings: Sequence[Setting], limits: Sequence[float]) -> Draw:
    ticks = [setting[place] for setting in settings]
    places = positions(ticks)
    gap = min((b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)), default=1.0)

    def draw(axes: "Axes") -> None:
        count = len(comparison.options)
        for number, option in enumerate(comparison.options):
            shift = gap * 0.4 * ((number + 0.5) / count - 0.5)  # beside one another, or the bars would hide each other
            cells = [comparison.cells.get((option, one)) for one in settings]
            found = [(at + shift, score) for at, score in zip(places, cells, strict=True) if score]
            means = [(at, scaled(comparison, score.mean)) for at, score in found if score.mean is not None]
            bars = [(at, *(scaled(comparison, x) for x in score.interval)) for at, score in found if score.interval]
            look = series_look(number)
            if means:
                axes.plot(*zip(*means, strict=True), linewidth=1.2, **look)
            if bars:
                axes.vlines(*zip(*bars, strict=True), color=look["color"], linewidth=0.9)
        axes.set_xticks(places, [short(tick) for tick in ticks])
        if max(map(len, ticks)) * len(ticks) > LONGEST_NAME + 8:
            axes.tick_params(axis="x", labelrotation=20)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set(xlabel=comparison.axes[place], ylabel=axis_label(comparison), ylim=limits)

    return draw


def positions(options: Sequence[str]) -> list[float]:
    """Return where options stand on an axis: numbers at their values, others one after the other.

    >>> positions(["0", "0.4", "0.8"]), positions(["none", "pairs"])
    ([0.0, 0.4, 0.8], [0.0, 1.0])
    """
    try:
        numbers = [float(option) for option in options]
    except ValueError:
        return [float(place) for place in range(len(options))]
    return numbers if len(set(numbers)) == len(numbers) else [float(place) for place in range(len(options))]
