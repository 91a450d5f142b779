"""Overviews of a sweep: heat map of options x settings, and rank plot with intervals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from server_app.report.drawing import CELL_INK, FIRST
from server_app.report.text import is_share, measure_title
from server_app.sweep.pictures import Panel, Picture, scaled, short
from server_app.sweep.ranking import ranks
from server_app.sweep.results import BEST_MARK, NOT_WORSE, Comparison, Score
from tasks.seeds import rng

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Doubles = npt.NDArray[np.float64]
CELL_INCHES, ROW_INCHES, CHARACTER_INCHES = 0.66, 0.3, 0.085
SHADE = "#5fae8f"  # numbers can be read on it
LEAST_RANGE = 0.02
"""Difference of shares in a column that full colour stands for at least, so that next to nothing is not made to look
like much."""
DRAWS = 1000


def by_rank(comparison: Comparison) -> list[str]:
    """Return the options, those with the best mean rank first, and those without a rank at the end."""
    found = {option: comparison.overall[option].rank for option in comparison.options}
    return sorted(comparison.options, key=lambda option: (found[option] is None, found[option] or 0.0))


def heat_map(comparison: Comparison) -> Picture | None:
    """Return the means of options x settings as numbers in coloured cells; None if there is none."""
    options, settings = by_rank(comparison), comparison.settings
    means = np.array([[_mean(comparison.cells.get((one, setting))) for setting in settings] for one in options])
    if np.isnan(means).all():
        return None
    names, titles = [short(one) for one in options], [short(comparison.title(setting)) for setting in settings]

    def draw(axes: "Axes") -> None:
        _draw_cells(axes, comparison, means)
        axes.set_yticks(np.arange(len(names)) + 0.5, names)
        turned = max(map(len, titles)) > 8
        axes.set_xticks(
            np.arange(len(titles)) + 0.5, titles, rotation=40 if turned else 0, ha="left" if turned else "center"
        )
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    inches = (
        CHARACTER_INCHES * max(map(len, names)) + CELL_INCHES * len(titles) + 0.9,
        ROW_INCHES * len(names) + 0.6 * CHARACTER_INCHES * max(map(len, titles)) + 0.5,
    )
    note = (
        f"Mean{' (%)' if is_share(comparison.measure) else ''} over the seeds, rows in the order of their mean ranks. "
        f"Bold: {_extreme(comparison)} of its column. The darker a cell, the nearer to that; colours show no test."
    )
    title = f"{measure_title(comparison.measure)} of each {comparison.design.compared} in each setting"
    return Picture("heat-map", title, note, (Panel("", draw),), inches=inches)


def _mean(score: Score | None) -> float:
    return float("nan") if score is None or score.mean is None else score.mean


def shades(means: Doubles, lower_is_better: bool, least_range: float) -> Doubles:
    """Return how near each mean is to the best of its column, in [0, 1]; NaN stays.

    >>> shades(np.array([[0.5], [0.9], [0.7]]), False, 0.02).T
    array([[0. , 1. , 0.5]])
    """
    signed = -means if lower_is_better else means
    best, worst = np.fmax.reduce(signed, axis=0), np.fmin.reduce(signed, axis=0)  # NaN only of nothing but NaN
    return np.asarray(1 - (best - signed) / np.maximum(best - worst, least_range))


def _draw_cells(axes: "Axes", comparison: Comparison, means: Doubles) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    palette = LinearSegmentedColormap.from_list("shades", ["#f4f8f6", SHADE]).with_extremes(bad="#eceef1")
    least = LEAST_RANGE if is_share(comparison.measure) else 1e-12
    near = shades(means, comparison.lower_is_better, least)
    axes.pcolormesh(np.ma.masked_invalid(near), cmap=palette, vmin=0, vmax=1, edgecolors="#ffffff", linewidth=1.5)
    axes.set(xlim=(0, means.shape[1]), ylim=(means.shape[0], 0))
    best = means == (np.fmin if comparison.lower_is_better else np.fmax).reduce(means, axis=0)
    for row, column in np.ndindex(means.shape):
        value, weight = float(means[row, column]), "bold" if best[row, column] else "normal"
        text = "-" if np.isnan(value) else number_text(comparison, value)
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, color=CELL_INK, weight=weight)


def number_text(comparison: Comparison, value: float) -> str:
    """Return a value in a cell: a share in percent with one decimal, others with three."""
    return f"{scaled(comparison, value):.1f}" if is_share(comparison.measure) else f"{value:.3f}"


def rank_plot(comparison: Comparison) -> Picture | None:
    """Return the mean ranks over the settings with their intervals; None with fewer than two ranked options."""
    found = {one: comparison.overall[one].rank for one in by_rank(comparison)}
    ranked = {option: rank for option, rank in found.items() if rank is not None}
    options = list(ranked)
    if len(options) < 2:
        return None
    intervals = rank_intervals(comparison, options)
    names = [short(option) for option in options]

    def draw(axes: "Axes") -> None:
        for row, option in enumerate(options):
            if option in intervals:
                axes.hlines(row, *intervals[option], color=FIRST, linewidth=1.6)
            near = comparison.overall[option].mark in (BEST_MARK, NOT_WORSE)
            axes.plot(ranked[option], row, "o", color=FIRST, markersize=7, fillstyle="full" if near else "none")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlim=(0.7, len(options) + 0.3), ylim=(len(options) - 0.4, -0.6), xlabel="mean rank (1 = best)")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")

    inches = (CHARACTER_INCHES * max(map(len, names)) + 4.6, ROW_INCHES * len(names) + 0.8)
    note = (
        "Rank 1 is the highest mean of a setting."
        if not comparison.lower_is_better
        else "Rank 1 is the lowest mean of a setting."
    )
    note += " Lines: 95 % of the mean ranks when seeds and settings are drawn again (bootstrap)." if intervals else ""
    note += f" {_filled_note(comparison)}"
    return Picture("ranks", "Mean rank over the settings", note, (Panel("", draw),), inches=inches)


def _extreme(comparison: Comparison) -> str:
    return "lowest" if comparison.lower_is_better else "highest"


def _filled_note(comparison: Comparison) -> str:
    others = any(score.mark == NOT_WORSE for score in comparison.overall.values())
    end = ", and those that tests do not find to be worse." if others else "."
    return f"Filled: the {_extreme(comparison)} mean over all settings{end}"


def rank_intervals(comparison: Comparison, options: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the percentile interval (95 %) of each option's mean rank, seeds and settings drawn with replacement.

    The same seeds and settings are drawn for all options. Only seeds that every option has in every setting are drawn;
    with fewer than two there is no interval.
    """
    cells = [[comparison.cells.get((one, setting)) for setting in comparison.settings] for one in options]
    lines = [[[_value(score, seed) for seed in comparison.seeds] for score in row] for row in cells]
    values = np.array(lines, float).reshape(len(options), len(comparison.settings), len(comparison.seeds))
    values = values[:, :, ~np.isnan(values).any((0, 1))]
    _, settings, seeds = values.shape
    if seeds < 2:
        return {}
    random = rng(0, "sweep", "rank-intervals")
    weights = random.multinomial(seeds, [1 / seeds] * seeds, size=DRAWS).T / seeds  # (seeds, draws)
    drawn = ranks(values @ weights, comparison.lower_is_better)  # (options, settings, draws)
    shares = random.multinomial(settings, [1 / settings] * settings, size=DRAWS).T / settings
    low, high = np.percentile(np.einsum("osd,sd->od", drawn, shares), [2.5, 97.5], axis=1)
    return {option: (float(a), float(b)) for option, a, b in zip(options, low, high, strict=True)}


def _value(score: Score | None, seed: str) -> float:
    return float("nan") if score is None else score.values.get(seed, float("nan"))
