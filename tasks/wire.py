"""Half precision on the wire: parameters that travel in 16 bits, float16 or bfloat16, in both directions.

Down, the model is rounded; the server keeps its own in full precision, as in training with master weights (Micikevicius
et al., ICLR 2018). Up, a client sends how far it went from the model that it received: rounded weights would lose every
update below a thousandth of the weight, a rounded difference is off by a share of itself. The server adds it to the
model it has kept, so that the rounding down is not part of the result, and nothing piles up from round to round.

Each tensor is scaled by a power of two so that its largest value comes near the format's largest: nothing overflows,
and float16 has 40 powers of two for the rest: what lies further below becomes 0. What 16 bits can hold comes back
exactly. All else is off by at most 2**-11 (float16) or 2**-8 (bfloat16) of itself.

Buffers stay as they are: a variance that falls from 1000 to 0.01 would come back negative. Integers are never touched.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord

from tasks.extra_arrays import base_name, travels_in_full
from tasks.protocol import MOST_EXPONENT, Arrays, SerializationError, Slot, header_of, layout_of, parts
from tasks.records import STYPE, ArrayView, byte_array

Bits = npt.NDArray[np.uint16]

FULL = "float32"
"""The setting that leaves every array as it is."""
WIRE_ERROR = "wire-error"
"""Metric of a reply: norm of what rounding changed in the update over the norm of the update."""


@dataclass(frozen=True)
class HalfFormat:
    """A format of 16 bits: torch's type, bits of the significand with the hidden one, exponent of the largest value."""

    dtype: torch.dtype
    precision: int
    top: int


FORMATS = {"float16": HalfFormat(torch.float16, 11, 15), "bfloat16": HalfFormat(torch.bfloat16, 8, 127)}


def wires_of(arrays: Arrays, wire: str, exact: Collection[str] = ()) -> dict[str, str]:
    """Return the format of every array that travels in half precision: floats above 16 bits that are not ``exact``.

    ``exact`` holds names of each network's own; what is no network's always travels in full.
    """
    if wire == FULL:
        return {}
    large = [name for name, array in arrays.items() if array.dtype.name in MOST_EXPONENT and not travels_in_full(name)]
    return {name: wire for name in large if base_name(name) not in exact}


def to_half(values: npt.NDArray[np.generic], wire: str) -> tuple[Bits, int]:
    """Return values (n,), float32 or float64, as 16 bits each (n,), and the exponent of the power of two in them."""
    exponent = _exponent(values, FORMATS[wire], MOST_EXPONENT[values.dtype.name])
    scaled = torch.from_numpy(np.multiply(values, values.dtype.type(2.0**exponent)))
    bits: Bits = scaled.to(FORMATS[wire].dtype).view(torch.uint16).numpy()
    return bits, exponent


def from_half(bits: Bits, slot: Slot) -> npt.NDArray[np.generic]:
    """Return the values behind 16 bits each (n,), in the dtype of the slot; writable."""
    if slot.wire == "bfloat16":
        values = (bits.astype(np.uint32) << 16).view(np.float32)
    else:
        values = bits.view(np.float16).astype(np.float32)
    restored = values.astype(slot.dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # a hostile exponent; validation sees what comes of it
        restored *= restored.dtype.type(2.0**-slot.exponent)
    return restored


def _exponent(values: npt.NDArray[np.generic], half: HalfFormat, most: int) -> int:
    largest = max(-float(values.min()), float(values.max())) if values.size else 0.0
    if not 0 < largest < math.inf:
        return 0
    significand, exponent = math.frexp(largest)  # 0.5 <= significand < 1
    rounds_up = significand >= 1 - 2.0 ** -(half.precision + 1)  # to a power of two that may not exist
    return max(-most, min(half.top + 1 - exponent - rounds_up, most))


class HalfArray(ArrayView):
    """An array of a record behind 16 bits, restored anew whenever it is looked at, so that no second copy stays.

    Parameters
    ----------
    bits
        Its values, (n,); shares their memory.
    slot
        Its shape, dtype and format.
    base
        What is added to the values, of the same shape and dtype; None = nothing.
    """

    def __init__(self, bits: Bits, slot: Slot, base: npt.NDArray[np.generic] | None = None) -> None:
        self._bits, self._slot, self._base = bits, slot, base
        self.dtype, self.shape, self.stype = slot.dtype, slot.shape, STYPE

    @property
    def wire(self) -> str:
        """The format in which it came."""
        return self._slot.wire

    @property
    def view(self) -> npt.NDArray[np.generic]:  # type: ignore[override]
        """The restored array, read-only."""
        restored = self.numpy()
        restored.flags.writeable = False
        return restored

    def numpy(self) -> npt.NDArray[np.generic]:
        """Return the restored array."""
        restored = from_half(self._bits, self._slot).reshape(self._slot.shape)
        if self._base is not None:
            restored += self._base  # type: ignore[misc]
        return restored


def pack_half(arrays: Arrays, wires: Mapping[str, str], base: ArrayRecord | None = None) -> tuple[Array, str, float]:
    """Return all arrays as Flower's array of their bytes (B,), copied once, its header, and the relative error.

    Parameters
    ----------
    arrays
        What is sent.
    wires
        Format of each array that travels in half precision; see :func:`wires_of`.
    base
        What such arrays are sent as differences to; None = they are sent themselves.

    Raises
    ------
    SerializationError
        If an array's dtype cannot travel.
    """
    pieces, slots, errors, norms = [], [], 0.0, 0.0
    for place, array in zip(layout_of(arrays), arrays.values(), strict=True):
        slot, values = place, np.ascontiguousarray(array).reshape(-1)
        if wire := wires.get(slot.name, ""):
            values = values if base is None else _difference(values, base[slot.name].numpy().reshape(-1))
            bits, exponent = to_half(values, wire)
            slot = replace(slot, wire=wire, exponent=exponent)
            errors += _squared_norm(_difference(from_half(bits, slot), values))
            norms += _squared_norm(values)
            values = bits
        pieces.append(values.view(np.uint8))
        slots.append(slot)
    return byte_array(*pieces), header_of(slots), math.sqrt(errors / norms) if norms else 0.0


def _difference(values: npt.NDArray[Any], start: npt.NDArray[Any]) -> npt.NDArray[Any]:
    with np.errstate(invalid="ignore"):  # of a model that has diverged
        return np.asarray(np.subtract(values, start))


def _squared_norm(values: npt.NDArray[Any]) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.einsum("p,p->", values, values, dtype=np.float64))


def named_record(
    flat: npt.NDArray[np.generic],
    header: str,
    wires: Mapping[str, str] | None = None,
    base: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> ArrayRecord:
    """Return the named arrays behind ``flat`` (B,) as a record; what is in half precision is restored when asked for.

    Parameters
    ----------
    flat, header
        See :func:`tasks.protocol.pack`.
    wires
        The format in which each array was to come; None takes what comes.
    base
        What arrays in half precision are differences to; None = they are values themselves.

    Raises
    ------
    SerializationError
        If the header is malformed, does not fit the bytes, or names another format than was to come.
    """
    record = ArrayRecord()
    for slot, bits in parts(flat, header):
        if wires is not None and slot.wire != wires.get(slot.name, ""):
            expected = wires.get(slot.name) or "in full"
            raise SerializationError(f"array {slot.name!r} was to come as {expected}, got {slot.wire or slot.dtype}")
        if not slot.wire:
            record[slot.name] = ArrayView(bits.view(slot.dtype).reshape(slot.shape))
            continue
        start = None if base is None else base[slot.name]
        if start is not None and (start.shape != slot.shape or start.dtype.name != slot.dtype):
            raise SerializationError(
                f"array {slot.name!r}: expected {start.dtype} {start.shape}, got {slot.dtype} {slot.shape}"
            )
        record[slot.name] = HalfArray(bits.view(np.uint16), slot, start)
    return record


def half_arrays(record: ArrayRecord) -> dict[str, str]:
    """Return the format of every array of a record that came in half precision."""
    return {name: array.wire for name, array in record.items() if isinstance(array, HalfArray)}
