"""Noisy segmentation masks: a share of the masks is grown, shrunk or displaced.

The noise of Li, Gao and He, "Superpixel-guided iterative learning from noisy labels for medical image segmentation",
MICCAI 2021; it was also used for T-Loss (Gonzalez-Jimenez et al., MICCAI 2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.base import Labels
from tasks.noise.base import (
    NOISES,
    Features,
    LabelNoise,
    NoiseError,
    check_labels,
    check_share,
    exact_count,
)

Mask = npt.NDArray[np.bool_]
MAX_ANGLE = 30.0
"""Largest rotation of an affine displacement, in degrees."""
MAX_STEP = 100
"""Largest shift of an affine displacement, in pixels."""
DIRECTIONS = ((0, 1), (0, 1), (1, 0), (1, 0), (1, 1), (1, 1), (1, 1), (1, 1))
"""Shifts (rows, columns) of equal probability: right, down and, twice as often, both."""


def grow(mask: Mask, strength: float) -> Mask:
    """Dilate a mask (H, W) pixel by pixel until its area is as near as possible to (1 + strength) of what it was."""
    from scipy import ndimage  # slow to import, and a real node never needs it

    return _until(mask, mask.sum() + int(mask.sum() * strength), ndimage.binary_dilation)


def shrink(mask: Mask, strength: float) -> Mask:
    """Erode a mask (H, W) pixel by pixel until its area is as near as possible to (1 - strength); never to nothing."""
    from scipy import ndimage

    return _until(mask, mask.sum() - int(mask.sum() * strength), ndimage.binary_erosion)


def _until(mask: Mask, target: int, step: Callable[[Mask], Mask]) -> Mask:
    """Repeat ``step`` until the area passes ``target``; return the nearer one of the last two masks."""
    start = mask.sum()
    before, after = mask, mask
    while (after.sum() - target) * (start - target) > 0:
        before, after = after, step(after)
        if after.sum() in (0, mask.size, before.sum()):
            return before
    return before if abs(before.sum() - target) < abs(after.sum() - target) else after


def displace(mask: Mask, strength: float, angle: float, direction: tuple[int, int]) -> Mask:
    """Rotate a mask (H, W) by ``angle`` degrees and shift it until the share of wrong pixels is near ``strength``.

    The share is the number of pixels that differ from ``mask``, divided by its area. The shift is a whole number of
    pixels along ``direction`` (rows, columns), the last one that the published bisection of [0, 100] tries; it
    may miss the best one by two pixels, which matters for small images. An empty mask stays empty.
    """
    if not mask.any():
        return mask
    moved = turned = rotate(mask, angle)
    low, high = 0, MAX_STEP
    while low < high:
        step = (low + high) // 2
        moved = shift(turned, step * direction[0], step * direction[1])
        if (moved ^ mask).sum() < strength * mask.sum():
            low = step + 1
        else:
            high = step - 1
    return moved


def rotate(mask: Mask, angle: float) -> Mask:
    """Rotate a mask (H, W) about its centre, counter-clockwise, and keep the pixels that it covers entirely."""
    from scipy import ndimage

    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    centre = (np.array(mask.shape) - 1) / 2
    covered = ndimage.affine_transform(mask.astype(np.float64), matrix, centre - matrix @ centre, order=1)
    return np.asarray(covered > 1 - 1e-9)


def shift(mask: Mask, down: int, right: int) -> Mask:
    """Move a mask (H, W) by whole pixels; what leaves the image is lost."""
    moved = np.zeros_like(mask)
    height, width = mask.shape
    moved[down:, right:] = mask[: max(height - down, 0), : max(width - right, 0)]
    return moved


def _displace_at_random(mask: Mask, strength: float, rng: np.random.Generator) -> Mask:
    angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
    return displace(mask, strength, angle, DIRECTIONS[int(rng.integers(len(DIRECTIONS)))])


CHANGES: dict[str, Callable[[Mask, float, np.random.Generator], Mask]] = {
    "dilate": lambda mask, strength, rng: grow(mask, strength),
    "erode": lambda mask, strength, rng: shrink(mask, strength),
    "affine": _displace_at_random,
}


@NOISES.register("masks", "Li et al., MICCAI 2021", "https://arxiv.org/abs/2107.10100")
@dataclass(frozen=True, kw_only=True)
class MaskNoise(LabelNoise):
    """Grow, shrink or displace a share of the segmentation masks (two classes: background 0, object 1).

    The noise rate is the share of the masks that change. Each of them gets one of ``changes``, drawn with equal
    probability.

    Parameters
    ----------
    strength
        How much a mask changes, relative to its area.
    changes
        What may happen to a mask, each as often as the others: "dilate", "erode", "affine".
    """

    num_classes: int
    rate: float
    strength: float = 0.5
    changes: Sequence[str] = tuple(CHANGES)

    def __post_init__(self) -> None:
        check_share("the noise rate", self.rate)
        check_share("strength", self.strength)
        if self.num_classes != 2:
            raise NoiseError(f"mask noise is made for background and one object, not for {self.num_classes} classes")
        if isinstance(self.changes, str) or not self.changes or not set(self.changes) <= set(CHANGES):
            raise NoiseError(f"changes must be a list of some of {', '.join(CHANGES)}, not {self.changes!r}")

    def __call__(
        self, labels: Labels, rng: np.random.Generator, *, features: Features | None = None, ids: Labels | None = None
    ) -> Labels:
        """Return the given masks (n, H, W)."""
        noisy = check_labels(labels, self.num_classes, ndim=3)
        for index in rng.choice(len(noisy), exact_count(self.rate, len(noisy)), replace=False):
            change = CHANGES[self.changes[int(rng.integers(len(self.changes)))]]
            noisy[index] = change(noisy[index] == 1, self.strength, rng)
        return noisy
