"""Doubted regions of a mask: planted errors are found where they are, as large as they are, in their direction."""

import numpy as np

from client_app.mask_regions import EXTRA, MISSING, OTHER, Region, find_regions, in_words, kinds, region_columns


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Return a wrong mask and the right one, (40, 50): a part missing, one extra, one of another class."""
    right = np.zeros((40, 50), np.int64)
    right[10:20, 10:30] = 1
    right[30:36, 5:15] = 2
    given = right.copy()
    given[10:20, 25:30] = 0  # cut off
    given[2:6, 40:48] = 1  # drawn where nothing is
    given[30:36, 5:15] = 1  # called by the wrong name
    return given, right


def test_planted_errors_are_found_as_regions_the_largest_first() -> None:
    found = find_regions(*planted())
    assert found == [
        Region(1, 2, 60, (30, 5, 35, 14)),
        Region(0, 1, 50, (10, 25, 19, 29)),
        Region(1, 0, 32, (2, 40, 5, 47)),
    ]
    assert [region.direction for region in found] == [OTHER, MISSING, EXTRA]
    assert in_words(found) == "another class 60 px in 1, extra 32 px in 1, missing 50 px in 1"


def test_touching_corners_connect_and_apart_regions_do_not() -> None:
    given, suggested = np.zeros((8, 8), np.int64), np.zeros((8, 8), np.int64)
    suggested[1, 1] = suggested[2, 2] = 1
    suggested[5, 6] = 1
    assert [(region.pixels, region.box) for region in find_regions(given, suggested)] == [
        (2, (1, 1, 2, 2)),
        (1, (5, 6, 5, 6)),
    ]


def test_single_pixels_of_a_large_image_are_no_region() -> None:
    given, suggested = np.zeros((100, 100), np.int64), np.zeros((100, 100), np.int64)
    suggested[50, 50] = 1
    suggested[10, 10:20] = 1
    assert [region.pixels for region in find_regions(given, suggested)] == [10]
    assert find_regions(given, given) == []


def test_pixels_without_a_class_are_not_doubted() -> None:
    given, right = planted()
    given[10:20] = right[10:20] = -100
    assert [region.direction for region in find_regions(given, right)] == [OTHER, EXTRA]


def test_regions_are_listed_by_the_name_of_their_image() -> None:
    regions = find_regions(*planted())
    columns = region_columns(("a.png", "b.png"), [[], regions[1:]], ("back", "cell", "edge"))
    assert list(zip(*columns.values(), strict=True)) == [
        ("b.png", 1, MISSING, "back", "cell", 50, 10, 25, 19, 29),
        ("b.png", 2, EXTRA, "cell", "back", 32, 2, 40, 5, 47),
    ]


def test_every_doubted_pixel_has_one_direction() -> None:
    given, right = planted()
    found = kinds(given, right)
    assert {name: int(pixels.sum()) for name, pixels in found.items()} == {MISSING: 50, EXTRA: 32, OTHER: 60}
    assert (sum(pixels.astype(int) for pixels in found.values()) == (given != right)).all()
