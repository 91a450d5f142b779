"""Columns of class numbers from .npz, .pt and .csv files, read without running code that a file may hold."""

import codecs
import csv
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.noise.base import Labels, NoiseError
from tasks.plugin import did_you_mean
from tasks.site.files import inside
from tasks.site.problems import UnusableError

Column = npt.NDArray[Any]
MISSING = -1
"""Stands for an example without a label, in a CSV file an empty cell."""


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


def _read_table(path: Path) -> dict[str, Column]:
    readers: dict[str, Callable[[Path], dict[str, Column]]] = {".npz": _read_npz, ".pt": _read_pt, ".csv": _read_csv}
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

    rebuild = np.zeros(0).__reduce__()[0]
    allowed: list[Any] = [
        (rebuild, "numpy.core.multiarray._reconstruct"),
        (rebuild, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("uint8", "int32", "int64")),
        codecs.encode,
    ]
    with torch.serialization.safe_globals(allowed):
        table = torch.load(path, map_location="cpu", weights_only=True)
    return {name: np.asarray(column) for name, column in table.items()}
