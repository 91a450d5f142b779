"""The model as it travels: one flat byte array and a header that says what lies where.

Flower moves every array as an object of its own, so three hundred arrays of 10 MB cost eight times one array.
Bytes keep every dtype exact: integer buffers such as BatchNorm's counter stay integers.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
import numpy.typing as npt

from tasks.told import ToldError

NPY = b"\x93NUMPY\x01\x00"
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


class WireError(ToldError):
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
        As :func:`views` does.
    """
    return {name: view.copy() for name, view in views(flat, header).items()}  # a copy is aligned, a view need not be


def views(flat: npt.NDArray[np.generic], header: str) -> Arrays:
    """Return the named arrays behind ``flat`` (B,) without copying them.

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
        arrays[slot.name] = flat[start : start + slot.size].view(slot.dtype).reshape(slot.shape)
        start += slot.size
    return arrays


def read_npy(data: bytes) -> npt.NDArray[np.generic]:
    """Return the array in ``data``, NumPy's file format 1.0, as a read-only view.

    ``np.load`` would open archives, and reserve as much memory as the header states.

    Raises
    ------
    WireError
        If the bytes are not one array of numbers that fills them exactly.
    """
    if data[: len(NPY)] != NPY:
        raise WireError(f"expected an array in NumPy's format 1.0, got bytes that start with {data[: len(NPY)]!r}")
    start = len(NPY) + 2 + int.from_bytes(data[len(NPY) : len(NPY) + 2], "little")
    shape, fortran_order, dtype = _npy_header(data[len(NPY) : start])
    if dtype.name not in DTYPES or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - start:
        raise WireError(f"the header states {dtype} of shape {shape}, but {len(data) - start} bytes follow it")
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran_order else "C")


@lru_cache(maxsize=1024)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Parse a header, which takes longer than reading a small array; all clients send the same ones."""
    try:
        return np.lib.format.read_array_header_1_0(BytesIO(header))
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"expected the header of an array in NumPy's format 1.0: {error}") from error


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
