"""Charts of a report as inline SVG, and the one look of all drawings (matplotlib, extra ``report``).

Each chart returns None if the run recorded nothing to draw, and raises ``ImportError`` without matplotlib.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from server_app.report.labels import CLEAN, NOISY, Standing, accuracy
from server_app.report.reading import RunRecord
from server_app.report.summaries import ClientSummary
from server_app.storage.audit_scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID, FIRST, SECOND = "#1c2430", "#8a94a3", "#dfe3e8", "#0b6e4f", "#b4582a"
COLOURS = {CLEAN: FIRST, NOISY: SECOND, "unknown": FAINT}
SIZE_INCHES = (4.6, 2.75)
MOST_MARKERS = 40
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


def accuracy_chart(record: RunRecord) -> Chart | None:
    """Draw accuracy and macro-F1 on clean test data over the rounds, and apart from them the validation accuracy."""
    names = ("accuracy", "macro-f1", "validation_accuracy")
    accuracy, f1, validation = ([(n, 100 * share) for n, share in record.series(name)] for name in names)
    best = record.best_round
    if not accuracy and not f1 and not validation:
        return None

    def draw(axes: "Axes") -> None:
        line(axes, accuracy, "test accuracy", color=FIRST)
        line(axes, f1, "test macro-F1", color=SECOND, linestyle="--")
        line(axes, validation, "validation accuracy", color=FAINT, linestyle=":")
        for mark in [point for point in validation if point[0] == best]:
            axes.plot(*mark, "o", color=INK, markersize=8, fillstyle="none", label="best on validation")
        highest = max(share for _, share in [*accuracy, *f1, *validation])
        axes.set_ylim(0, min(10 * ((highest + 3) // 10 + 1), 102))  # room for the mark of the best round
        axes.set_ylabel("% of the examples")

    note = "Higher is better. Test: clean test data that no client has, by which nothing is chosen."
    validated = " Validation: training examples that are held out, by which the best round is chosen."
    return Chart("Accuracy", over_rounds("accuracy", draw), note + validated * bool(validation))


def loss_chart(record: RunRecord) -> Chart | None:
    """Draw the loss on clean test data and on validation data, and the clients' training loss, over the rounds."""
    test, train, validation = (record.series(name) for name in ("loss", "train_loss", "validation_loss"))
    corrects = any(entry.role == "noisy" for entry in record.client_rounds)
    if not test and not train and not validation:
        return None

    def draw(axes: "Axes") -> None:
        line(axes, test, "test (clean labels)", color=FIRST)
        line(axes, validation, "validation", color=FAINT, linestyle=":")
        line(axes, train, "training" if corrects else "training (given labels)", color=SECOND, linestyle="--")
        axes.set_ylabel("mean loss per example")

    theirs = ", and that of the client method at clients taken for noisy" if corrects else ""
    note = (
        "Lower is better. Test, validation: cross-entropy on clean test data, and on what is held out. Training: the "
        f"clients' own loss function ({record.config.get('loss.name', 'not recorded')}) on the labels they were given"
        f"{theirs}, so its scale may differ."
    )
    return Chart("Loss", over_rounds("loss", draw), note)


def trust_chart(clients: Sequence[ClientSummary], equal_weight: float | None) -> Chart | None:
    """Draw each client's mean weight against its share of wrong labels, if these differ between clients."""
    shown = [client for client in clients if client.noise_rate is not None and client.mean_weight is not None]
    if equal_weight is None or len({client.noise_rate for client in shown}) < 2:
        return None
    most = max(client.examples or 1 for client in shown)

    def draw(axes: "Axes") -> None:
        axes.axhline(100 * equal_weight, color=FAINT, linewidth=1.2, linestyle="--", label="equal weights")
        axes.scatter(
            [100 * (client.noise_rate or 0.0) for client in shown],
            [100 * (client.mean_weight or 0.0) for client in shown],
            s=[12 + 70 * (client.examples or 1) / most for client in shown],
            color=FIRST,
            alpha=0.65,
            linewidths=0,
            label="one client (larger = more examples)",
        )
        axes.set_ylim(0, 108 * max(equal_weight, *(client.mean_weight or 0.0 for client in shown)))
        axes.set_xlabel("wrong labels (% of the client's labels)")
        axes.set_ylabel("mean weight (% of model)")

    note = "If the points fall towards the right, clients with more wrong labels had less influence on the model."
    return Chart("Does the model trust clients with wrong labels less?", svg("trust", draw), note)


def line(axes: "Axes", points: Sequence[tuple[float, float]], label: str, **look: Any) -> None:
    """Draw a line through the points that there are, each with a marker unless they are many."""
    if points:
        axes.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) <= MOST_MARKERS else "", **look)


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
        if not axes.get_legend_handles_labels()[0]:
            return
        figure.legend(loc="outside upper left", ncols=3, fontsize=9, columnspacing=1.2)

    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    look = {"svg.hashsalt": name}
    drawn = draw_figure(inches, with_legend, look, format="svg", transparent=True, metadata=no_metadata)
    return _for_page(name, drawn.decode())


def draw_figure(
    inches: tuple[float, float], draw: Callable[["Figure"], None], look: Mapping[Any, Any], **saving: Any
) -> bytes:
    """Return a figure in the look of all drawings, as the file that ``Figure.savefig`` makes with ``saving``.

    ``inches`` are its width and height; ``look`` are matplotlib's parameters that differ from those of other drawings.
    """
    import matplotlib  # itself, not only its parts: this is where a missing installation shows
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**RC, **look}):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        target = io.BytesIO()
        figure.savefig(target, **saving)
    return target.getvalue()


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
        axes.text(column, row, text, ha="center", va="center", fontsize=size)


def name_ticks(axis: Any, names: Sequence[str]) -> None:
    """Name every row or column of an axis, or some at even distances where they are many."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, len(names)) if len(names) / step <= MOST_TICKS)
    places = range(0, len(names), step)
    axis.set_ticks(places, [names[place] for place in places])


def _for_page(name: str, svg: str) -> str:
    """Cut off the XML prologue and the style rule that would act on the page; make ids unique on the page."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<style.*?</style>", "", element, flags=re.DOTALL)
    element = element.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")
    for reference in (' id="', "url(#", ' href="#'):
        element = element.replace(reference, f"{reference}{name}-")
    return element.replace("<svg", f'<svg role="img" aria-label="chart: {name}"', 1)


def standing_chart(found: Sequence[Standing]) -> Chart | None:
    """Draw what decided about each client against its true share of wrong labels, one point per client.

    That is the probability of being noisy, or where no client has one the estimated share of wrong labels.
    """
    probable = any(entry.posterior is not None for entry in found)
    reasons = [(entry, entry.posterior if probable else entry.noise_level) for entry in found]
    known = [
        (entry.role, 100 * entry.noise_rate, 100 * value)
        for entry, value in reasons
        if entry.noise_rate is not None and value is not None
    ]
    if not known:
        return None

    def draw(axes: "Axes") -> None:
        for role in (CLEAN, NOISY):
            rates = [rate for kind, rate, _ in known if kind == role]
            values = [value for kind, _, value in known if kind == role]
            axes.scatter(rates, values, s=36, color=COLOURS[role], alpha=0.65, label=f"taken for {role}")
        axes.set_ylim(-4, 104)
        axes.set_xlabel("wrong labels (% of the client's labels)")
        axes.set_ylabel("probability of noisy (%)" if probable else "estimated wrong labels (%)")

    note = "A good detector puts the points with few wrong labels at the bottom and those with many at the top."
    return Chart("Were the right clients taken for noisy?", svg("standing", draw), note)


def group_chart(losses: dict[str, list[tuple[int, float]]]) -> Chart | None:
    """Draw the mean training loss of each group of clients over the rounds."""
    if not losses.keys() & {CLEAN, NOISY}:
        return None

    def draw(axes: "Axes") -> None:
        for role, colour in COLOURS.items():
            line(axes, losses.get(role, []), role, color=colour)
        axes.set_ylabel("mean training loss")

    note = (
        "Noisy clients may minimise another loss than clean ones, so the two levels need not compare; "
        "the course of each does."
    )
    return Chart("Clean and noisy clients over the rounds", over_rounds("groups", draw), note)


def label_chart(scores: Scores) -> Chart | None:
    """Draw for each client how many of its labels are right: as given, as suggested, and as the method changed them."""
    clients = sorted(scores.clients, key=lambda score: score.noise_rate)
    if not scores.wrong:
        return None

    def draw(axes: "Axes") -> None:
        places = range(len(clients))
        given = [100 * score.given_accuracy for score in clients]
        suggested = [100 * (accuracy(score, score.suggested) or 0.0) for score in clients]
        axes.vlines(places, given, suggested, color=FAINT, linewidth=1.2)
        axes.plot(places, given, "o", color=FAINT, markersize=5, label="as given")
        axes.plot(places, suggested, "o", color=FIRST, markersize=5, label="as suggested")
        changed = [
            (i, 100 * score.corrected.right / score.examples) for i, score in enumerate(clients) if score.corrected
        ]
        if changed:
            axes.plot(
                *zip(*changed, strict=True), "D", color=SECOND, markersize=4, fillstyle="none", label="as changed"
            )
        axes.set_ylim(0, 104)
        axes.set_xticks([])
        axes.set_xlabel("clients, from fewest to most wrong labels")
        axes.set_ylabel("right labels (%)")

    note = "As changed: with the labels that the client method changed while it trained, where it did."
    if not any(score.corrected for score in clients):
        note = "As suggested: if the client followed every suggestion of its list."
    return Chart("How many labels are right?", svg("labels", draw), note)
