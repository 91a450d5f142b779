"""Records of Flower over NumPy arrays that are in memory already.

Flower keeps every array as a file in NumPy's format: putting one in and taking it out copies it three times. Here a
record holds views, and makes such a file only if somebody asks for its bytes.
"""

from collections.abc import Mapping
from io import BytesIO
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from tasks.protocol import Arrays, read_npy

STYPE = "numpy.ndarray"  # Flower's name for NumPy's file format

Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)


class ArrayView(Array):
    """A read-only view of an array in place of Flower's copy.

    Strategies and mods see no difference: ``numpy()`` is a copy that they may write to, ``data`` the file that Flower
    would have made. Whoever makes one must not change the array while it is in use.

    Parameters
    ----------
    array
        Any array of numbers; ``view`` shares its memory.
    """

    def __init__(self, array: npt.NDArray[np.generic]) -> None:  # the fields are set here: Flower would copy
        self.view = np.asarray(array).view()
        self.view.flags.writeable = False
        self.dtype, self.shape, self.stype = str(array.dtype), tuple(array.shape), STYPE

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The array as a file in NumPy's format, made anew at every call."""
        return Array(self.numpy()).data

    def numpy(self) -> npt.NDArray[np.generic]:
        """Return a copy in C order."""
        return self.view.copy()


def view_record(arrays: Mapping[str, npt.NDArray[np.generic]]) -> ArrayRecord:
    """Return named arrays as a record of views."""
    record = ArrayRecord()
    for name, array in arrays.items():  # given as a dictionary, Flower would copy every one
        record[name] = ArrayView(array)
    return record


def views(record: ArrayRecord) -> Arrays:
    """Return the arrays of a record as read-only views, of its bytes where it is Flower's own.

    Raises
    ------
    SerializationError
        If an array's bytes cannot be read.
    """
    return {name: view_of(array) for name, array in record.items()}


def view_of(array: Array) -> npt.NDArray[np.generic]:
    """Return one array as a read-only view.

    Raises
    ------
    SerializationError
        If its bytes cannot be read.
    """
    return array.view if isinstance(array, ArrayView) else read_npy(array.data)


def byte_array(*pieces: npt.NDArray[np.uint8]) -> Array:
    """Return bytes, one piece after the other, as Flower's array (B,), copied once, where Flower copies thrice."""
    shape = (sum(piece.size for piece in pieces),)
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return Array("uint8", shape, STYPE, b"".join((head.getvalue(), *(piece.data for piece in pieces))))


def records_of(content: RecordDict, kind: type[Record]) -> dict[str, Record]:
    """Return a message's records of one kind by name.

    Flower's own ``content.array_records`` refers back to the message, which then stays in memory, arrays and all, until
    Python looks for such circles.
    """
    return {name: record for name, record in content.items() if isinstance(record, kind)}
