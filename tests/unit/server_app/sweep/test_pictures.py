"""Pictures of a sweep: what is drawn is what was measured, and it can be told apart without colour."""

from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_app.report.drawing import MARKERS, PALETTE, VARIABLES, panel_svg, series_look
from server_app.sweep.comparison import compare
from server_app.sweep.curves import curves
from server_app.sweep.overviews import heat_map, rank_intervals, rank_plot, shades
from server_app.sweep.pictures import MOST_BANDS, Picture, noise_picture, progress_picture
from server_app.sweep.rendering import Grid, picture_view, write_pictures
from server_app.sweep.results import Comparison
from tests.sweep_cases import design_of, run_of, runs_of_values, series_of, synthetic_runs

figures = pytest.importorskip("matplotlib.figure")


def compared(methods: int = 3, noises: int = 3, seeds: int = 5, **changes: Any) -> Comparison:
    """A comparison of methods, the later the better, in noises, the later the harder."""
    names, kinds = [f"m{number}" for number in range(methods)], [f"noise {number}" for number in range(noises)]
    design = design_of(names, kinds, seeds)
    effects = {name: 0.6 + 0.015 * number for number, name in enumerate(names)}
    costs = {kind: 0.05 * number for number, kind in enumerate(kinds)}
    return replace(compare(design, synthetic_runs(design, effects, costs)), **changes)


def drawn(picture: Picture | None, panel: int = 0) -> Any:
    """The axes on which a panel of a picture is drawn."""
    assert picture
    axes = figures.Figure().add_subplot()
    picture.panels[panel].draw(axes)
    return axes


def test_each_setting_has_a_panel_with_a_line_for_each_option_and_the_same_axis():
    comparison = compared()
    lines = curves(comparison, comparison.runs)
    picture = progress_picture(comparison, lines)
    assert picture
    assert [panel.title for panel in picture.panels] == ["noise 0", "noise 1", "noise 2"]
    limits = set()
    for place, setting in enumerate(comparison.settings):
        axes = drawn(picture, place)
        limits.add(axes.get_ylim())
        for line, option in zip(axes.lines, comparison.options, strict=True):
            np.testing.assert_allclose(line.get_ydata(), 100 * np.array(lines[option, setting].means))
        assert len(axes.collections) == len(comparison.options)  # the bands
    assert len(limits) == 1


def test_of_many_options_only_the_best_and_the_baseline_have_bands():
    comparison = compared(methods=MOST_BANDS + 1, noises=1)
    picture = progress_picture(comparison, curves(comparison, comparison.runs))
    axes = drawn(picture)
    colours = [tuple(band.get_facecolor()[0][:3]) for band in axes.collections]
    best, base = axes.lines[MOST_BANDS], axes.lines[0]
    to_rgb = pytest.importorskip("matplotlib.colors").to_rgb
    assert colours == [to_rgb(base.get_color()), to_rgb(best.get_color())]
    assert picture
    assert "of the best option and the baseline alone" in picture.note


def test_sixteen_series_differ_without_colour_and_neighbours_in_colour_too():
    looks = [series_look(place) for place in range(16)]
    assert len({(look["marker"], str(look["linestyle"])) for look in looks}) == 16
    assert len(set(MARKERS)) == 16
    assert all(one["color"] != after["color"] for one, after in pairwise(looks))


def luminance(colour: str) -> float:
    """Relative luminance of a colour, by WCAG 2.2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_lines_can_be_seen_on_a_light_and_a_dark_page():
    style = (Path(__file__).parents[4] / "server_app/report/templates/style.css.md").read_text()
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)")[:2]
    assert all(f"--{VARIABLES[colour]}: {colour}" in light for colour in PALETTE)
    for block, page in ((light, "#ffffff"), (dark.split("}\n}")[0], "#14171c")):
        for place in range(len(PALETTE) - 1):
            colour = block.partition(f"--series-{place}: ")[2][:7]
            bright, dim = sorted((luminance(colour), luminance(page)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) > 2.0, (page, colour)


def test_points_against_noise_are_means_with_intervals_in_order_of_the_axis():
    comparison = compared(noises=4)
    axes = drawn(noise_picture(comparison))
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"noise {number}" for number in range(4)]
    for line, bars, option in zip(axes.lines, axes.collections, comparison.options, strict=True):
        scores = [comparison.cells[option, setting] for setting in comparison.settings]
        np.testing.assert_allclose(line.get_ydata(), [100 * (score.mean or 0) for score in scores])
        ends = [segment[:, 1] for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, [[100 * end for end in score.interval or ()] for score in scores])
        assert list(np.round(line.get_xdata())) == [0, 1, 2, 3]


def test_other_axes_than_the_noise_make_panels_and_numbers_stand_at_their_values():
    axes = {"method": ("a", "b"), "clients": ("10", "20"), "noise": ("0", "0.2", "0.8"), "seed": ("1", "2")}
    design = design_of(("a", "b"), axes=axes)
    comparison = compare(design, runs_of(design))
    picture = noise_picture(comparison)
    assert picture
    assert [panel.title for panel in picture.panels] == ["10", "20"]
    panel = drawn(picture, 1)
    np.testing.assert_allclose(panel.get_xticks(), [0, 0.2, 0.8])
    means = [comparison.cells["b", ("20", noise)].mean for noise in ("0", "0.2", "0.8")]
    np.testing.assert_allclose(panel.lines[1].get_ydata(), [100 * (mean or 0) for mean in means])


def runs_of(design: Any) -> Any:
    """Runs of any design, each with its own values."""
    points = [dict(zip(design.axes, options, strict=True)) for options in product(*design.axes.values())]
    return [run_of(n, point, series_of(0.5 + 0.01 * n, 12, 0.0, 1, str(n))) for n, point in enumerate(points)]


def test_one_setting_needs_no_picture_by_noise():
    assert noise_picture(compared(noises=1)) is None


def test_the_heat_map_has_the_means_as_numbers_best_ranks_first_and_the_best_of_a_column_bold():
    comparison = compared(methods=3, noises=2)
    axes = drawn(heat_map(comparison))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["m2", "m1", "m0"]
    texts = [(text.get_text(), text.get_fontweight()) for text in axes.texts]
    means = [
        [100 * (comparison.cells[option, one].mean or 0) for one in comparison.settings]
        for option in ("m2", "m1", "m0")
    ]
    assert [text for text, _ in texts] == [f"{mean:.1f}" for row in means for mean in row]
    assert [weight for _, weight in texts] == ["bold"] * 2 + ["normal"] * 4


def test_shades_say_how_near_a_mean_is_to_the_best_of_its_column():
    means = np.array([[0.5, 0.9, np.nan], [0.7, 0.901, 0.3], [0.9, np.nan, np.nan]])
    np.testing.assert_allclose(shades(means, False, 0.02)[:, 0], [0, 0.5, 1])
    np.testing.assert_allclose(shades(means, True, 0.02)[:, 0], [1, 0.5, 0])
    np.testing.assert_allclose(shades(means, False, 0.02)[:2, 1], [0.95, 1])  # 0.1 points are next to nothing
    np.testing.assert_allclose(shades(means, False, 0.02)[1, 2], 1)


def test_ranks_are_drawn_with_their_intervals_and_filled_where_no_test_finds_them_worse():
    comparison = compared(methods=4, noises=4)
    axes = drawn(rank_plot(comparison))
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["m3", "m2", "m1", "m0"]
    assert [line.get_xdata()[0] for line in axes.lines] == [comparison.overall[name].rank for name in names]
    filled = [line.get_fillstyle() == "full" for line in axes.lines]
    assert filled == [bool(comparison.overall[name].mark) for name in names]
    assert filled[0]
    assert not filled[3]


def test_intervals_of_ranks_are_those_of_all_draws_of_two_seeds():
    design = design_of(("a", "b", "c"), ("clean",), seeds=2)
    values = {("a", "clean"): [0.9, 0.1], ("b", "clean"): [0.5, 0.5], ("c", "clean"): [0.0, 0.0]}
    comparison = compare(design, runs_of_values(design, values))
    # Both seeds alike: a is first or second; one of each: a and b share 1.5. Each in a quarter, a quarter and a half.
    found = rank_intervals(comparison, ["a", "b", "c"])
    assert found == {"a": (1.0, 2.0), "b": (1.0, 2.0), "c": (3.0, 3.0)}
    apart = {("a", "clean"): [0.9, 0.2], ("b", "clean"): [0.8, 0.1], ("c", "clean"): [0.0, 0.0]}
    together = compare(design, runs_of_values(design, apart))  # the same seeds are drawn for all: a is always before b
    assert rank_intervals(together, ["a", "b", "c"]) == {"a": (1.0, 1.0), "b": (2.0, 2.0), "c": (3.0, 3.0)}
    assert rank_intervals(compared(seeds=1), ["m0", "m1", "m2"]) == {}


def test_files_and_svg_are_the_same_again_and_of_their_kind(tmp_path: Path):
    comparison = compared(methods=2, noises=2, seeds=2)
    picture = heat_map(comparison)
    assert picture
    paths = write_pictures(tmp_path, [picture])
    assert [path.name for path in paths] == ["heat-map.png", "heat-map.pdf"]
    before = [path.read_bytes() for path in paths]
    assert [content[:4] for content in before] == [b"\x89PNG", b"%PDF"]
    assert b"/Type3" not in before[1]  # fonts that publishers refuse
    assert [path.read_bytes() for path in write_pictures(tmp_path, [picture])] == before
    assert picture_view(picture) == picture_view(picture)


@pytest.mark.parametrize(("panels", "grid"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (8, (2, 4)), (9, (3, 3))])
def test_panels_of_a_file_stand_in_a_grid(panels: int, grid: tuple[int, int]):
    picture = progress_picture(*with_settings(panels))
    assert picture
    assert (Grid.of(picture).rows, Grid.of(picture).columns) == grid


def with_settings(count: int) -> Any:
    """A comparison with so many settings, and its curves."""
    comparison = compared(methods=1, noises=count, seeds=1)
    return comparison, curves(comparison, comparison.runs)


def test_colours_of_a_drawing_are_variables_of_the_page():
    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=PALETTE[2])

    text = panel_svg("test", draw, (2.0, 1.5))
    assert "var(--series-2)" in text
    assert not {colour for colour in VARIABLES if colour in text}
