"""The model as it travels: one flat byte array and a header that says what lies where.

Flower moves every array as an object of its own, so three hundred arrays of 10 MB cost eight times one array.
Bytes keep every dtype exact: integer buffers such as BatchNorm's counter stay integers.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.generic]]
DTYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)


class WireError(ValueError):
    """Bytes and header that do not describe a set of arrays."""


@dataclass(frozen=True)
class Slot:
    """Place of one array: its name, shape and dtype; arrays lie one after the other in this order."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def layout_of(arrays: Mapping[str, npt.NDArray[np.generic]]) -> tuple[Slot, ...]:
    """Return the layout of named arrays.

    Raises
    ------
    WireError
        If an array's dtype cannot travel.
    """
    slots = tuple(Slot(name, tuple(array.shape), array.dtype.name) for name, array in arrays.items())
    for slot in slots:
        if slot.dtype not in DTYPES:
            raise WireError(f"array {slot.name!r} has dtype {slot.dtype}; supported: {', '.join(DTYPES)}")
    return slots


def pack(arrays: Mapping[str, npt.NDArray[np.generic]]) -> tuple[npt.NDArray[np.uint8], str]:
    """Return all arrays as one byte array (B,) and its header, a JSON text."""
    slots = layout_of(arrays)
    flat = np.empty(sum(slot.size for slot in slots), np.uint8)
    start = 0
    for slot, array in zip(slots, arrays.values(), strict=True):
        flat[start : start + slot.size] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        start += slot.size
    return flat, json.dumps([[slot.name, slot.shape, slot.dtype] for slot in slots], separators=(",", ":"))


def unpack(flat: npt.NDArray[np.uint8], header: str) -> Arrays:
    """Return the named arrays behind ``flat`` (B,) as writable copies; the inverse of :func:`pack`.

    Raises
    ------
    WireError
        If the header is malformed, names an array twice, or does not fit the number of bytes.
    """
    slots = _read_header(header)
    expected = sum(slot.size for slot in slots)
    if flat.dtype != np.uint8 or flat.ndim != 1 or flat.size != expected:
        raise WireError(f"expected {expected} bytes as the header says, got {flat.dtype} of shape {flat.shape}")
    arrays: Arrays = {}
    start = 0
    for slot in slots:
        part = flat[start : start + slot.size].copy()  # a copy is aligned, whatever the offset
        arrays[slot.name] = part.view(slot.dtype).reshape(slot.shape)
        start += slot.size
    return arrays


def _read_header(header: str) -> tuple[Slot, ...]:
    try:
        slots = tuple(
            Slot(str(name), tuple(int(n) for n in shape), str(dtype)) for name, shape, dtype in json.loads(header)
        )
    except (ValueError, TypeError) as error:
        raise WireError(f"the header is not a list of [name, shape, dtype]: {error}") from error
    if len({slot.name for slot in slots}) < len(slots):
        raise WireError("the header names an array twice")
    for slot in slots:
        if slot.dtype not in DTYPES or any(n < 0 for n in slot.shape):
            raise WireError(f"array {slot.name!r} has dtype {slot.dtype} and shape {slot.shape}")
    return slots
