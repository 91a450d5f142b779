"""Noisy segmentation masks in limit cases; the golden masks are in tests/parity."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tasks.noise import NOISES, NoiseError, realised_rate
from tasks.noise.masks import displace, grow, rotate, shift, shrink
from tasks.plugins import PluginError
from tasks.seeds import rng

Y, X = np.mgrid[:40, :40]
DISK = (Y - 20) ** 2 + (X - 18) ** 2 <= 81
EMPTY, FULL = np.zeros((40, 40), dtype=bool), np.ones((40, 40), dtype=bool)


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.7, 1.0])
def test_growing_and_shrinking_come_as_near_as_whole_pixels_allow(strength: float) -> None:
    larger = [ndimage.binary_dilation(DISK, iterations=i).sum() if i else DISK.sum() for i in range(12)]
    smaller = [ndimage.binary_erosion(DISK, iterations=i).sum() if i else DISK.sum() for i in range(12)]
    area = DISK.sum()
    assert grow(DISK, strength).sum() == min(larger, key=lambda a: abs(a - area * (1 + strength)))
    possible = [a for a in smaller if a > 0]
    assert shrink(DISK, strength).sum() == min(possible, key=lambda a: abs(a - area * (1 - strength)))


def test_growing_contains_and_shrinking_is_contained() -> None:
    assert (grow(DISK, 0.5) >= DISK).all()
    assert (shrink(DISK, 0.5) <= DISK).all()


@pytest.mark.parametrize("change", [grow, shrink])
def test_masks_without_room_stay(change: Any) -> None:
    np.testing.assert_array_equal(change(EMPTY, 0.5), EMPTY)
    np.testing.assert_array_equal(change(DISK, 0.0), DISK)
    point = EMPTY.copy()
    point[3, 3] = True
    assert change(point, 0.9).any()
    assert change(point, 0.9).sum() <= 5
    assert change(FULL, 0.5).any()


def test_a_rotation_by_nothing_and_by_a_quarter() -> None:
    np.testing.assert_array_equal(rotate(DISK, 0.0), DISK)
    np.testing.assert_array_equal(rotate(DISK, 90.0), np.rot90(DISK))


def test_shift_moves_down_and_right() -> None:
    np.testing.assert_array_equal(shift(DISK, 0, 0), DISK)
    np.testing.assert_array_equal(shift(DISK, 3, 5)[3:, 5:], DISK[:-3, :-5])
    assert not shift(DISK, 3, 5)[:3].any()
    assert not shift(DISK, 40, 0).any()
    assert not shift(DISK, 0, 100).any()


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.7])
def test_a_displaced_mask_misses_the_best_shift_by_two_pixels_at_most(strength: float) -> None:
    turned = rotate(DISK, 10.0)
    wrong = [(shift(turned, 0, step) ^ DISK).sum() / DISK.sum() for step in range(40)]
    best = int(np.argmin(np.abs(np.array(wrong) - strength)))
    near = [shift(turned, 0, step) for step in range(max(best - 2, 0), best + 3)]
    displaced = displace(DISK, strength, 10.0, (0, 1))
    assert any((displaced == mask).all() for mask in near)


def test_an_empty_mask_cannot_be_displaced() -> None:
    assert not displace(EMPTY, 0.5, 10.0, (1, 1)).any()


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_exactly_a_share_of_the_masks_changes(rate: float) -> None:
    masks = np.repeat(DISK[None].astype(np.int64), 20, axis=0)
    noisy = NOISES.build("masks", "strength = 0.5", num_classes=2, rate=rate)(masks, rng(1))
    assert (noisy != masks).any(axis=(1, 2)).sum() == round(20 * rate)
    assert set(np.unique(noisy)) <= {0, 1}
    assert realised_rate(masks, masks) == 0


def test_changes_can_be_chosen() -> None:
    masks = np.repeat(DISK[None].astype(np.int64), 5, axis=0)
    noisy = NOISES.build("masks", 'changes = ["erode"]', num_classes=2, rate=1.0)(masks, rng(1))
    for mask in noisy:
        np.testing.assert_array_equal(mask, shrink(DISK, 0.5))


def test_all_three_changes_occur() -> None:
    masks = np.repeat(DISK[None].astype(np.int64), 60, axis=0)
    noisy = NOISES.build("masks", num_classes=2, rate=1.0)(masks, rng(1))
    grown, shrunk = (noisy == grow(DISK, 0.5)).all((1, 2)), (noisy == shrink(DISK, 0.5)).all((1, 2))
    counts = np.array([grown.sum(), shrunk.sum(), 60 - grown.sum() - shrunk.sum()])
    assert counts.min() >= 8


def test_wrong_use_is_explained() -> None:
    for args, classes, message in (
        ("strength = 1.5", 2, "strength must be a number between 0 and 1"),
        ("", 3, "background and one object, not for 3"),
        ('changes = ["melt"]', 2, "some of dilate, erode, affine"),
        ("changes = []", 2, "some of dilate, erode, affine"),
    ):
        with pytest.raises(PluginError, match=message):
            NOISES.build("masks", args, num_classes=classes, rate=0.5)
    with pytest.raises(NoiseError, match="one mask per example"):
        NOISES.build("masks", num_classes=2, rate=0.5)(np.array([0, 1]), rng(1))
