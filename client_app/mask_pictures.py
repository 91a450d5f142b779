"""Mask pictures: an image, and beside it the same with its mask and what is doubted of that drawn over it.

Directions of doubt differ in colour, in lightness and in the slant of their hatching, for who does not tell colours
apart; between the lines the image stays as it is.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from client_app.mask_regions import EXTRA, MISSING, OTHER, kinds
from tasks.base import Labels

SHOWN_SIZE = 256
"""Pixels of the shorter side that a picture has at least; small images are enlarged by a whole number."""
THICKNESS = 3
PERIOD = 10
"""Pixels from one line of a hatching to the next."""
GIVEN_COLOUR = (255, 220, 0)
COLOURS = {MISSING: (0, 200, 255), EXTRA: (255, 0, 80), OTHER: (255, 255, 255)}
SLANTS = {MISSING: (1, 1), EXTRA: (1, -1), OTHER: (1, 0)}
"""Hatching: falling, rising and level lines, as the factors of row and column that are constant along a line."""
T = TypeVar("T", bound=np.generic)
Picture = npt.NDArray[np.uint8]


def picture(image: npt.NDArray[np.float32], given: Labels, suggested: Labels) -> Picture:
    """Return an image (C, H, W) from 0 to 1, and beside it the same with both masks (H, W) over it, (H', W', 3)."""
    colours = np.repeat(image[:1], 3, axis=0) if len(image) < 3 else image[:3]
    plain = (255 * colours.clip(0, 1)).round().astype(np.uint8).transpose(1, 2, 0)
    return side_by_side(enlarged(plain), given, suggested)


def enlarged(plain: Picture) -> Picture:
    """Return an image (H, W, 3) as it is, or a small one so many times as large that its details can be seen."""
    scale = max(1, -(-SHOWN_SIZE // min(plain.shape[:2])))
    return plain.repeat(scale, 0).repeat(scale, 1)


def side_by_side(plain: Picture, given: Labels, suggested: Labels) -> Picture:
    """Return an image (H, W, 3), and beside it the same with the masks over it, (H, 2 W, 3).

    The masks (h, w) are stretched to the image. The outline of the given one is yellow; of what the one that seems
    right has more outline and hatching are blue, of what it has less red, and of where it has another class white.
    """
    from scipy.ndimage import binary_erosion  # takes a while to start

    before, after = (_stretched(mask, plain.shape[:2]) for mask in (given, suggested))
    rows, columns = np.indices(before.shape)
    marked = plain.copy()
    for direction, region in kinds(before, after).items():
        down, across = SLANTS[direction]
        lines = (down * rows - across * columns) % PERIOD == 0
        marked[region & (lines | ~binary_erosion(region, iterations=THICKNESS))] = COLOURS[direction]
    marked[_outline(before)] = GIVEN_COLOUR
    return np.concatenate([plain, marked], axis=1)


def _stretched(mask: npt.NDArray[T], size: tuple[int, ...]) -> npt.NDArray[T]:
    """Return a mask (h, w) as large as an image of this size (H, W), each pixel the nearest one."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def _outline(classes: Labels) -> npt.NDArray[np.bool_]:
    """Return the pixels (H, W) on both sides of where the class changes."""
    edge = np.zeros(classes.shape, bool)
    for axis in (0, 1):
        change = np.diff(classes, axis=axis) != 0
        pad = [(0, 0), (0, 0)]
        pad[axis] = (0, 1)
        edge |= np.pad(change, pad)
        pad[axis] = (1, 0)
        edge |= np.pad(change, pad)
    return edge
