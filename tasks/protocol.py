"""Protocol between server and clients: mode, public errors, message keys, message header, and the model as it travels.

Serialization: the model is one flat byte array and a header that says what lies where. Flower moves every array as an
object of its own, so three hundred arrays of 10 MB cost eight times one array. Bytes keep every dtype exact: integer
buffers such as BatchNorm's counter stay integers.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

RECORD = "winnow"
"""Name of the record that holds the message header, or the layout of a reply."""
ARRAYS = "flat"
"""Name of the one array of a model as it travels."""
LARGEST_NUMBER = 2**31 - 1

OF_STRATEGY = "strategy:"
"""What the names of those arrays in a run's checkpoint begin with that are not its model's."""
SINCE_DETECTION = "rounds-since-detection"
"""Rounds since the server told clean from noisy clients apart; 0 up to the first round after the warm-up."""
LEARNED = "learned-labels"
"""Whether a reply of this client counted in which it corrected its labels: then it must have a state."""

WANT_PROFILE = "want-profile"
"""Whether the client shall report its loss profile under the model that it receives, beside its training."""
WANT_NOISE_RATE, NOISE_RATE = "want-noise-rate", "noise-rate"
"""Whether a loss profile shall say too how many of the client's labels seem wrong, and that share."""
WANT_SHARES = "estimate-shares"
"""Whether the losses of a profile shall be those of predictions that are weighed by the client's true class shares."""

QUESTION = "question"
"""What a client is asked outside of training: ``RELABEL`` or ``RELABEL_CONFIDENT``."""
RELABEL, RELABEL_CONFIDENT = "relabel", "relabel-confident"
NOISE_LEVEL = "noise-level"
"""Estimated share of wrong labels: the answer to ``RELABEL``, and what the server says of it later."""
WANT_SCORE, SCORE = "want-lid", "lid"
"""Whether the client shall report its mean local intrinsic dimensionality, and that number."""
EXPERTISE, PROBE_LOGITS = "expertise", "probe-logits"
"""Named arrays of FedRN: a client's accuracy on its own labels, and its model's logits of one random input."""
SCORES = "scores"
"""What FedRN's server gives a client beside its neighbours' models: how reliable itself and each of them is."""

NO_FOLDER = "no-folder"
"""Whether a node has no folder of its own, so that it has made no label audit."""
MODEL_ROUND = "model-round"
"""Of which round the model is that a client gets for label audit and personal results: the best one, else the last."""
SAME_DATA = "same-data"
"""Whether a client is told, after the last round, that another one has exactly the same data."""

NPY = b"\x93NUMPY\x01\x00"
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
WIRES = ("float16", "bfloat16")
"""Formats of 16 bits in which floating-point arrays may travel; see :mod:`tasks.wire`."""
MOST_EXPONENT = {"float32": 126, "float64": 1000}
"""Dtypes that may travel in 16 bits, and the largest exponent of a power of two with an inverse in each."""
Arrays = dict[str, npt.NDArray[np.generic]]


class Mode(Enum):
    """Where the clients of a run are."""

    SIMULATION = "simulation"
    """All on the server's machine, worker processes that share its files; the true labels are known."""

    DEPLOYMENT = "deployment"
    """Real nodes, each with an operator of its own, who alone says what is read, written and sent."""


class PublicError(ValueError):
    """An error about what the server sent, or about the node's part in the run, that the coordinator can correct.

    Its text is made for the coordinator and names nothing that is the site's own: no path, file, label or value of its
    data. Of any other error a real node tells the type only.
    """


class HeaderError(PublicError):
    """What accompanies a message is no message header; server and node may run different versions of the app."""


@dataclass(frozen=True)
class MessageHeader:
    """Addressee, round and settings of one message.

    ``encoder`` is the digest of the server's encoder, ``frozen`` that of its model's frozen parts; empty if the run has
    none. ``client`` is -1 where the server
    does not know the client's number. ``overrides`` are the settings in which this variant of the run differs from
    the run configuration (JSON); ``layout`` says what lies where in the flat model (empty when none travels);
    ``run_name`` keeps the states of different runs apart; ``run_dir`` is sent in simulations only, and so is ``rule``,
    the import path of the server's aggregator as attackers know it;
    ``checkpoint_round`` is the oldest round to which the run may still go back.
    """

    client: int
    server_round: int = 0
    num_rounds: int = 0
    role: str = "unknown"
    overrides: str = "{}"
    layout: str = ""
    run_name: str = ""
    run_dir: str = ""
    checkpoint_round: int = 0
    encoder: str = ""
    frozen: str = ""
    rule: str = ""

    def record(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, object]) -> "MessageHeader":
        """Return the header behind :meth:`record`'s values.

        Raises
        ------
        HeaderError
            If a field is missing, of another type, or a number out of range.
        """
        values: dict[str, Any] = {}
        for item in fields(cls):
            value = record.get(item.name)
            if type(value) is not item.type:
                raise HeaderError(f"the message has no {item.name} that is {_in_words(item.type)}, got {value!r:.100}")
            low = -1 if item.name == "client" else 0
            if isinstance(value, int) and not low <= value <= LARGEST_NUMBER:
                raise HeaderError(f"{item.name} of the message must lie in {low}..{LARGEST_NUMBER}, got {value}")
            values[item.name] = value
        return cls(**values)

    def changes(self) -> dict[str, bool | int | float | str]:
        """Return the overridden settings.

        Raises
        ------
        HeaderError
            If they are not one JSON object.
        """
        try:
            found = json.loads(self.overrides)
        except (ValueError, RecursionError) as error:
            raise HeaderError(f"the overridden settings of the message are not JSON: {error}") from error
        if not isinstance(found, dict):
            raise HeaderError("the overridden settings of the message are not a JSON object")
        return found


def _in_words(kind: object) -> str:
    return "a whole number" if kind is int else "a text"


class SerializationError(PublicError):
    """Bytes and header that do not describe a set of arrays."""


@dataclass(frozen=True)
class Slot:
    """Place of one array: its name, shape and dtype; arrays lie one after the other in this order.

    With a ``wire``, a format of 16 bits, what lies there are the values times two to the ``exponent`` in this format.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    wire: str = ""
    exponent: int = 0

    @property
    def size(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * (2 if self.wire else np.dtype(self.dtype).itemsize)

    @property
    def entry(self) -> list[object]:
        """What a header says of it."""
        return [self.name, self.shape, self.dtype, *((self.wire, self.exponent) if self.wire else ())]

    def check_wire(self) -> None:
        """Raise ``SerializationError`` unless its dtype may travel in its format, with its exponent."""
        most = MOST_EXPONENT.get(self.dtype, -1)
        if self.wire not in WIRES or type(self.exponent) is not int or abs(self.exponent) > most:
            raise SerializationError(
                f"array {self.name!r}: expected {' or '.join(MOST_EXPONENT)} in {' or '.join(WIRES)} with a small "
                f"exponent, got {self.dtype} in {self.wire!r:.50} with {self.exponent!r:.50}"
            )


def layout_of(arrays: Mapping[str, npt.NDArray[np.generic]]) -> tuple[Slot, ...]:
    """Return the layout of named arrays.

    Raises
    ------
    SerializationError
        If an array's dtype cannot travel.
    """
    slots = tuple(Slot(name, tuple(array.shape), array.dtype.name) for name, array in arrays.items())
    for slot in slots:
        if slot.dtype not in DTYPES:
            raise SerializationError(f"array {slot.name!r} has dtype {slot.dtype}; supported: {', '.join(DTYPES)}")
    return slots


def pack(arrays: Mapping[str, npt.NDArray[np.generic]]) -> tuple[npt.NDArray[np.uint8], str]:
    """Return all arrays as one byte array (B,) and its header, a JSON text."""
    slots = layout_of(arrays)
    flat = np.empty(sum(slot.size for slot in slots), np.uint8)
    start = 0
    for slot, array in zip(slots, arrays.values(), strict=True):
        flat[start : start + slot.size] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        start += slot.size
    return flat, header_of(slots)


def header_of(slots: Iterable[Slot]) -> str:
    """Return what says where each array lies, a JSON text."""
    return json.dumps([slot.entry for slot in slots], separators=(",", ":"))


def unpack(flat: npt.NDArray[np.uint8], header: str) -> Arrays:
    """Return the named arrays behind ``flat`` (B,) as writable copies; the inverse of :func:`pack`.

    Raises
    ------
    SerializationError
        As :func:`named_views` does.
    """
    return {
        name: view.copy() for name, view in named_views(flat, header).items()
    }  # a copy is aligned, a view need not be


def named_views(flat: npt.NDArray[np.generic], header: str) -> Arrays:
    """Return the named arrays behind ``flat`` (B,) without copying them.

    Raises
    ------
    SerializationError
        If the header is malformed, names an array twice or in half precision, or does not fit the number of bytes.
    """
    arrays: Arrays = {}
    for slot, part in parts(flat, header):
        if slot.wire:
            raise SerializationError(f"array {slot.name!r} was to come in full, got {slot.wire}")
        arrays[slot.name] = part.view(slot.dtype).reshape(slot.shape)
    return arrays


def parts(flat: npt.NDArray[np.generic], header: str) -> list[tuple[Slot, npt.NDArray[np.generic]]]:
    """Return each array's place, and its bytes as a view of ``flat`` (B,).

    Raises
    ------
    SerializationError
        If the header is malformed, names an array twice, or does not fit the number of bytes.
    """
    slots = read_header(header)
    expected = sum(slot.size for slot in slots)
    if flat.dtype != np.uint8 or flat.ndim != 1 or flat.size != expected:
        raise SerializationError(
            f"expected {expected} bytes as the header says, got {flat.dtype} of shape {flat.shape}"
        )
    ends = accumulate(slot.size for slot in slots)
    return [(slot, flat[end - slot.size : end]) for slot, end in zip(slots, ends, strict=True)]


def read_npy(data: bytes) -> npt.NDArray[np.generic]:
    """Return the array in ``data``, NumPy's file format 1.0, as a read-only view.

    ``np.load`` would open archives, and reserve as much memory as the header states.

    Raises
    ------
    SerializationError
        If the bytes are not one array of numbers that fills them exactly.
    """
    if data[: len(NPY)] != NPY:
        raise SerializationError(
            f"expected an array in NumPy's format 1.0, got bytes that start with {data[: len(NPY)]!r}"
        )
    start = len(NPY) + 2 + int.from_bytes(data[len(NPY) : len(NPY) + 2], "little")
    shape, fortran_order, dtype = _npy_header(data[len(NPY) : start])
    if dtype.name not in DTYPES or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - start:
        raise SerializationError(f"the header states {dtype} of shape {shape}, but {len(data) - start} bytes follow it")
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran_order else "C")


@lru_cache(maxsize=1024)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Parse a header, which takes longer than reading a small array; all clients send the same ones."""
    try:
        return np.lib.format.read_array_header_1_0(BytesIO(header))
    except (ValueError, TypeError, RecursionError) as error:
        raise SerializationError(f"expected the header of an array in NumPy's format 1.0: {error}") from error


def read_header(header: str) -> tuple[Slot, ...]:
    """Return the places that a header names.

    Raises
    ------
    SerializationError
        If it is malformed, or names an array twice.
    """
    try:
        slots = tuple(
            Slot(str(name), tuple(int(n) for n in shape), str(dtype), *wire)
            for name, shape, dtype, *wire in json.loads(header)
        )
    except (ValueError, TypeError) as error:
        raise SerializationError(f"the header is not a list of [name, shape, dtype]: {error}") from error
    if len({slot.name for slot in slots}) < len(slots):
        raise SerializationError("the header names an array twice")
    for slot in slots:
        if slot.dtype not in DTYPES or any(n < 0 for n in slot.shape):
            raise SerializationError(f"array {slot.name!r} has dtype {slot.dtype} and shape {slot.shape}")
        if slot.wire or slot.exponent:
            slot.check_wire()
    return slots
