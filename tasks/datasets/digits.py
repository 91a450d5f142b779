"""Digits of scikit-learn, its file and the fixed split, read without importing it: that takes longer than to train.

A test holds that images, labels and split are those of ``load_digits`` and ``train_test_split``.
"""

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import numpy.typing as npt

FILE = "sklearn/datasets/data/digits.csv.gz"


def read_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the images (1797, 8, 8), values 0 to 16, and the labels (1797,), in the order of the file."""
    table = np.loadtxt(Path(str(distribution("scikit-learn").locate_file(FILE))), np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def stratified_train(labels: npt.NDArray[np.int64], size: int, seed: int) -> npt.NDArray[np.int64]:
    """Return ``size`` indices of ``labels`` (n,), sorted, with each class's share as near to its own as can be.

    The draws come as in scikit-learn's ``StratifiedShuffleSplit``: which of equally near classes are rounded up, then
    a permutation of each class. (Its own rounding of the rest may draw once more; not with the digits.)
    """
    draws = np.random.RandomState(seed)
    classes = np.bincount(labels)
    expected = classes / len(labels) * size
    sizes = np.floor(expected).astype(int)
    for remainder in np.unique(expected - sizes)[::-1]:
        if missing := size - sizes.sum():
            tied = np.flatnonzero(expected - np.floor(expected) == remainder)
            sizes[draws.choice(tied, min(len(tied), missing), replace=False)] += 1
    parts = [
        np.flatnonzero(labels == number)[draws.permutation(count)[:chosen]]
        for number, (count, chosen) in enumerate(zip(classes, sizes, strict=True))
    ]
    return np.sort(np.concatenate(parts))
