"""Doubted regions of a mask: the connected parts in which mask and model disagree, and in which direction.

A part of one object is missing from the mask where the mask shows the background and the model is sure of an object,
and extra where it is the reverse; where both show an object, its class is doubted. Class 0 is the background.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.base import Labels

BACKGROUND = 0
MISSING, EXTRA, OTHER = "missing", "extra", "another class"
SMALLEST = 1e-3
"""Regions that are a smaller part of the image are left out: single pixels at an outline."""
NEIGHBOURS = np.ones((3, 3), np.int64)
"""Pixels are connected to all eight around them."""
EDGES = ("top", "left", "bottom", "right")
"""Columns of a box: its first row, first column, last row and last column."""


@dataclass(frozen=True)
class Region:
    """A connected part of an image for which another class than the given one seems right.

    Attributes
    ----------
    given, suggested
        The class that the mask has there, and the one that seems right.
    pixels
        How many pixels it has.
    box
        First row, first column, last row and last column.
    """

    given: int
    suggested: int
    pixels: int
    box: tuple[int, int, int, int]

    @property
    def direction(self) -> str:
        """Whether the mask lacks this part (``missing``), has it too much (``extra``), or names another class."""
        if self.given == BACKGROUND:
            return MISSING
        return EXTRA if self.suggested == BACKGROUND else OTHER


def find_regions(given: Labels, suggested: Labels) -> list[Region]:
    """Return the doubted regions of one mask, the largest first; both masks are (H, W)."""
    from scipy.ndimage import find_objects, label  # takes a while to start, and only an audit of masks needs it

    doubted, found = given != suggested, list[Region]()
    for before, after in np.unique(np.stack([given[doubted], suggested[doubted]]), axis=1).T.tolist():
        parts, _ = label((given == before) & (suggested == after), NEIGHBOURS)
        sizes = np.bincount(parts.ravel())
        for number, (rows, columns) in enumerate(find_objects(parts), start=1):
            if sizes[number] >= SMALLEST * given.size:
                box = (rows.start, columns.start, rows.stop - 1, columns.stop - 1)
                found.append(Region(before, after, int(sizes[number]), box))
    return sorted(found, key=lambda region: (-region.pixels, region.box))


def in_words(regions: list[Region]) -> str:
    """Return how many pixels of each direction there are in how many regions, such as ``missing 120 px in 2``."""
    totals: dict[str, list[int]] = {}
    for region in regions:
        totals.setdefault(region.direction, []).append(region.pixels)
    return ", ".join(f"{direction} {sum(sizes)} px in {len(sizes)}" for direction, sizes in sorted(totals.items()))


def region_columns(names: tuple[str, ...], regions: list[list[Region]], class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the list of all regions by column; ``names`` and ``regions`` are in the order of the audit."""
    rows = [
        (name, number, region)
        for name, some in zip(names, regions, strict=True)
        for number, region in enumerate(some, start=1)
    ]
    edges = {edge: [region.box[at] for _, _, region in rows] for at, edge in enumerate(EDGES)}
    return {
        "id": [name for name, _, _ in rows],
        "region": [number for _, number, _ in rows],
        "direction": [region.direction for _, _, region in rows],
        "given": [class_names[region.given] for _, _, region in rows],
        "suggested": [class_names[region.suggested] for _, _, region in rows],
        "pixels": [region.pixels for _, _, region in rows],
        **edges,
    }


def kinds(given: Labels, suggested: Labels) -> dict[str, npt.NDArray[np.bool_]]:
    """Return by direction which pixels of an image are doubted so, (H, W) each."""
    doubted = given != suggested
    missing, extra = doubted & (given == BACKGROUND), doubted & (suggested == BACKGROUND)
    return {MISSING: missing, EXTRA: extra, OTHER: doubted & ~missing & ~extra}
