"""Human label noise: labels that people really gave (CIFAR-10N, CIFAR-100N, AG News), or a file of your own.

Wei et al., "Learning with noisy labels revisited: a study using real-world human annotations", ICLR 2022. Columns of
class numbers come from .npz, .pt and .csv files, read without running code that a file may hold. The authors also
publish labels in the order of TensorFlow Datasets, with the places of these examples in torchvision's order.
"""

import codecs
import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.base import Labels
from tasks.noise.base import NOISES, Features, LabelNoise, NoiseError, check_labels
from tasks.own_data.files import UnusableError, inside
from tasks.plugins import did_you_mean

Column = npt.NDArray[Any]
MISSING = -1
"""Stands for an example without a label, in a CSV file an empty cell."""


def human_labels(path: str | Path, column: str, clean_labels: Labels, clean_column: str = "clean_label") -> Labels:
    """Return one column of a label file, (n,), for a whole data set whose true labels are ``clean_labels`` (n,).

    ``path`` ends in .npz, .pt or .csv. An empty cell of a CSV file becomes -1.

    Raises
    ------
    NoiseError
        If the file cannot be read, lacks a column, or its own true labels show that it is in another order.
    """
    clean, given = read_column(Path(path), clean_column), read_column(Path(path), column)
    _check_order(clean, np.asarray(clean_labels), path)
    return given.copy()


@NOISES.register("human", "Wei et al. (CIFAR-N), ICLR 2022", "https://arxiv.org/abs/2110.12088")
@dataclass(frozen=True, kw_only=True)
class HumanNoise(LabelNoise):
    """Give each example the label that a person gave it, from a file.

    The noise rate is the people's: a noise-rate distribution has no effect.

    Example: ``winnow run task.name=cifar-10 noise.name=human noise.args='path = "CIFAR-10_human.pt", column =
    "worse_label"'``

    Parameters
    ----------
    path
        File with the labels: .csv, .npz or .pt, below the data folder and relative to it.
    column
        Column of the given labels: "worse_label" (CIFAR-10N), "human_noisy_med" (AG News).
    clean_column
        Column of the true labels, with which the examples' own are compared; "gt" for AG News.
    missing
        What an example without a human label gets: "error", or "clean" for its true label.
    order
        For labels in another order than the examples': a .npy file beside them with the place of each row's example, as
        ``image_order_c100.npy``.
    """

    num_classes: int
    path: str
    column: str
    clean_column: str = "clean_label"
    missing: str = "error"
    order: str = ""
    data_root: Path = Path()

    def __post_init__(self) -> None:
        if self.missing not in ("error", "clean"):
            raise NoiseError(f'missing must be "error" or "clean", not {self.missing!r}')
        given = self._column(self.column)
        if given.size and not MISSING <= given.min() <= given.max() < self.num_classes:
            raise NoiseError(f"column {self.column!r} of {self.path} has classes outside 0..{self.num_classes - 1}")

    def __call__(
        self, labels: Labels, rng: np.random.Generator, *, features: Features | None = None, ids: Labels | None = None
    ) -> Labels:
        """Return the people's labels (n,) of the examples ``ids`` (n,)."""
        labels = check_labels(labels, self.num_classes)
        clean, given = self._column(self.clean_column), self._column(self.column)
        if ids is None or len(ids) != len(labels):
            raise NoiseError("human labels are looked up by each example's place in the data set; pass one id a label")
        unknown = ids[(ids < 0) | (ids >= len(given))]
        if len(unknown):
            raise NoiseError(f"{self.path} has labels for {len(given)} examples, but id {unknown[0]} was asked for")
        _check_order(clean[ids], labels, self.path)
        noisy = given[ids]
        absent = noisy == MISSING
        if absent.any() and self.missing == "error":
            raise NoiseError(
                f"{absent.sum()} of {len(ids)} examples have no label in column {self.column!r} of {self.path}; "
                'leave them out, or keep their true labels with missing = "clean"'
            )
        return np.where(absent, labels, noisy)

    def _column(self, name: str) -> Labels:
        column = read_column(below(self.data_root, self.path), name)
        if not self.order:
            return column
        order = read_order(below(self.data_root, self.order), len(column))
        placed = np.empty_like(column)
        placed[order] = column
        return placed


def _check_order(clean: Labels, labels: Labels, path: str | Path) -> None:
    if clean.shape != labels.shape:
        raise NoiseError(f"{path} has labels for {len(clean)} examples, but the data set has {len(labels)}")
    same = float(np.mean(clean == labels)) if labels.size else 1.0
    if same < 1:
        raise NoiseError(
            f"only {same:.1%} of the true labels in {path} are those of the data set: it belongs to other data or is "
            "in another order (CIFAR-N exists in torchvision's order, CIFAR-10_human.pt, and in that of TensorFlow "
            "Datasets; for the latter name image_order_c10.npy in order)"
        )


def below(root: Path, name: str) -> Path:
    """Return the file ``name`` of the data folder; its name comes with the settings, on a real node from the server.

    Raises
    ------
    NoiseError
        If it lies elsewhere, by its name or by a link.
    """
    try:
        return inside(root, name)
    except UnusableError as problem:
        raise NoiseError(f"path = {name!r:.220}: {problem}; name a file below {root}") from problem


@lru_cache(maxsize=8)
def read_column(path: Path, name: str) -> Labels:
    """Read one column of labels (n,) as int64; the array is shared and read-only.

    Raises
    ------
    NoiseError
        If the file cannot be read, has no such column, or it does not hold whole numbers.
    """
    table = _read_table(path)
    if name not in table:
        raise NoiseError(f"{path} has no column {name!r}{did_you_mean(name, table)}")
    column = table[name]
    try:
        labels = np.where(column == "", str(MISSING), column).astype(np.int64) if column.dtype.kind == "U" else column
    except ValueError as error:
        raise NoiseError(f"column {name!r} of {path} must hold class numbers: {error}") from None
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise NoiseError(f"column {name!r} of {path} must hold one class number per example, not {labels.dtype}")
    labels = labels.astype(np.int64)
    labels.flags.writeable = False
    return labels


@lru_cache(maxsize=2)
def read_order(path: Path, count: int) -> Labels:
    """Read the place of each of ``count`` rows, (count,), from a .npy file.

    Raises
    ------
    NoiseError
        If it cannot be read, or is no permutation of 0 to ``count`` - 1.
    """
    try:
        order = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise NoiseError(f"cannot read the order in {path}: {error}") from error
    if order.dtype.kind not in "iu" or not np.array_equal(np.sort(order, axis=None), np.arange(count)):
        raise NoiseError(f"{path} must hold each number from 0 to {count - 1} once, the place of each row's example")
    return np.asarray(order, np.int64)


def _read_table(path: Path) -> dict[str, Column]:
    readers: dict[str, Callable[[Path], dict[str, Column]]] = {".npz": _read_npz, ".pt": _read_pt, ".csv": _read_csv}
    if path.suffix == ".npy":  # a pickled dict, which could run code
        convert = f"import numpy as np; np.savez('{path.stem}', **np.load('{path.name}', allow_pickle=True).item())"
        raise NoiseError(f'{path}: make an .npz file of it, once and if you trust it: run  python -c "{convert}"')
    if path.suffix not in readers:
        raise NoiseError(f"labels are read from .npz, .pt or .csv files, not from {path}")
    if not path.is_file():
        raise NoiseError(f"there is no label file {path}")
    try:
        return readers[path.suffix](path)
    except Exception as error:  # three libraries, each with its own exceptions for a damaged file
        raise NoiseError(f"cannot read the labels in {path}: {type(error).__name__}: {error}") from error


def _read_npz(path: Path) -> dict[str, Column]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _read_csv(path: Path) -> dict[str, Column]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return {name: np.array([row[name] or "" for row in rows], dtype=np.str_) for name in reader.fieldnames or ()}


def _read_pt(path: Path) -> dict[str, Column]:
    """Read a dict of arrays saved by torch; of all pickled types, only those of plain arrays are let in."""
    import torch

    rebuild, scalar = np.zeros(0).__reduce__()[0], np.int64(0).__reduce__()[0]
    allowed: list[Any] = [
        (rebuild, "numpy.core.multiarray._reconstruct"),
        (rebuild, "numpy._core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),  # CIFAR-100N holds lists
        (scalar, "numpy._core.multiarray.scalar"),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("uint8", "int32", "int64")),
        codecs.encode,
    ]
    with torch.serialization.safe_globals(allowed):
        table = torch.load(path, map_location="cpu", weights_only=True)
    return {name: np.asarray(column) for name, column in table.items()}
