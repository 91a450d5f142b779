"""The kinds of bad replies, each next to the reason that has to be on record."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from tasks import protocol
from tasks.protocol import ARRAYS, RECORD

ERASE = "\x1b[2J\x1b[H\r\nround 20/20 accuracy 99 %\x00"


@dataclass(frozen=True)
class Letter:
    """One client's honest reply: what it answers to (this round and the one before), and what it says."""

    message: Message
    earlier: Message
    arrays: protocol.Arrays
    metrics: dict[str, Any]

    def write(self, arrays: protocol.Arrays | None = None, **metrics: Any) -> Message:
        """Return the reply with other arrays, and with some metrics changed (``...`` leaves one out)."""
        flat, layout = protocol.pack(self.arrays if arrays is None else arrays)
        return self.write_raw(_npy(flat), layout, **metrics)

    def write_raw(self, data: bytes, layout: str, **metrics: Any) -> Message:
        """Return the reply with any bytes and header."""
        changed = self.metrics | {name.replace("_", "-"): value for name, value in metrics.items()}
        content = RecordDict()
        content["arrays"] = ArrayRecord({ARRAYS: Array("uint8", (len(data),), "numpy.ndarray", data)})
        content["metrics"] = MetricRecord({name: value for name, value in changed.items() if value is not ...})
        content[RECORD] = ConfigRecord({"layout": layout})
        return Message(content, reply_to=self.message)

    def fail(self, reason: str) -> Message:
        """Return an error instead."""
        return Message(Error(2, reason), reply_to=self.message)

    def without(self, record: str) -> Message:
        """Return the reply without one of its records."""
        reply = self.write()
        del reply.content[record]
        return reply

    def layout(self) -> str:
        """Return the honest header."""
        return protocol.pack(self.arrays)[1]


@dataclass(frozen=True)
class Kind:
    """A kind of bad reply: what is sent instead, and the reason on record.

    The round must end as if the client had been silent; with ``kept`` as if it had sent its honest reply.
    """

    send: Callable[[Letter], list[Message]]
    reason: str
    kept: bool = False
    dtype: str = "float32"


def _npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def _weight(change: Callable[[np.ndarray], Any], reason: str, dtype: str = "float32") -> Kind:
    return Kind(
        lambda one: [one.write(one.arrays | {"weight": np.asarray(change(one.arrays["weight"]))})], reason, dtype=dtype
    )


def _filled(value: float, dtype: str = "float32") -> Kind:
    return _weight(lambda weight: np.full_like(weight, value), "weight.*not finite, or not below", dtype)


def _count(value: Any) -> Kind:
    return Kind(lambda one: [one.write(num_examples=value)], "num-examples")


def _raw(send: Callable[[Letter], Message]) -> Kind:
    return Kind(lambda one: [send(one)], "malformed reply")


def _old(one: Letter) -> list[Message]:
    reply = one.write()
    return [Message(reply.content, reply_to=one.earlier)]


def _lying_size(data: bytes) -> bytes:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000,), }\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


SILENT = Kind(lambda one: [], "no reply in time")
HONEST = Kind(lambda one: [one.write()], "", kept=True)
KINDS = {
    "silence": SILENT,
    "exception": Kind(lambda one: [one.fail("ZeroDivisionError")], "error 2: ZeroDivisionError"),
    "reason with escapes": Kind(lambda one: [one.fail(ERASE)], r"error 2: \?\[2J\?\[H\?\?round"),
    "reason of 1 MB": Kind(lambda one: [one.fail("x" * 2**20)], r"error 2: x{200,}\.\.\.$"),
    "array missing": Kind(lambda one: [one.write({"count": one.arrays["count"]})], "missing: running_var, weight"),
    "array extra": Kind(lambda one: [one.write(one.arrays | {"more": np.zeros(1)})], "not expected: more"),
    "array renamed": Kind(
        lambda one: [one.write({name.replace("weight", ERASE): a for name, a in one.arrays.items()})],
        "missing: weight; not expected: \\?",
    ),
    "arrays none": Kind(lambda one: [one.write({})], "missing: count, running_var, weight"),
    "arrays twice": Kind(lambda one: [_doubled(one.write())], "expected one set of arrays, got 2"),
    "shape": _weight(np.ravel, r"'weight': expected float32 \(5, 4\), got float32 \(20,\)"),
    "dtype float64": _weight(lambda weight: weight.astype(np.float64), "got float64"),
    "dtype int32": _weight(lambda weight: weight.astype(np.int32), "got int32"),
    "nan": _filled(np.nan),
    "inf": _filled(np.inf),
    "-inf": _filled(-np.inf),
    "one nan": _weight(
        lambda weight: np.where(np.arange(20).reshape(5, 4) == 7, np.nan, weight).astype("f"), "not finite"
    ),
    "3e38": _filled(3e38),
    "-3e38": _filled(-3e38),
    "1e300": _filled(1e300, "float64"),
    "integer 2**63 - 1": Kind(
        lambda one: [one.write(one.arrays | {"count": np.array(2**63 - 1)})], "'count'.*not below"
    ),
    "buffer nan": Kind(
        lambda one: [one.write(one.arrays | {"running_var": np.full(5, np.nan, np.float32)})],
        "'running_var'.*not finite",
    ),
    "examples 10**15": _count(10**15),
    "examples other": _count(11),
    "examples negative": _count(-10),
    "examples zero": _count(0),
    "examples fraction": _count(10.5),
    "examples list": _count([10, 10]),
    "examples missing": _count(...),
    "metrics missing": Kind(lambda one: [one.without("metrics")], "one of metrics, got 1 and 0"),
    "metric missing": Kind(lambda one: [one.write(train_loss=...)], "metrics missing or not finite: train-loss"),
    "metric nan": Kind(lambda one: [one.write(train_loss=np.nan)], "metrics missing or not finite: train-loss"),
    "metric 1e308": Kind(lambda one: [one.write(train_loss=1e308)], "metrics missing or not finite: train-loss"),
    "metric list": Kind(lambda one: [one.write(train_loss=[0.5])], "metrics missing or not finite: train-loss"),
    "metrics extra": Kind(lambda one: [one.write(**{ERASE: 1e30}, more=[1, 2])], "", kept=True),
    "reply twice": Kind(lambda one: [one.write(), one.write(_far(one.arrays))], "replied twice", kept=True),
    "reply to an old round": Kind(_old, "no reply in time"),
    "layout missing": _raw(lambda one: one.without(RECORD)),
    "layout no JSON": _raw(lambda one: one.write_raw(_npy(protocol.pack(one.arrays)[0]), "x")),
    "layout deep": _raw(lambda one: one.write_raw(_npy(protocol.pack(one.arrays)[0]), "[" * 100_000)),
    "layout lying": _raw(lambda one: one.write_raw(_npy(protocol.pack(one.arrays)[0]), one.layout().replace("5", "6"))),
    "layout negative": _raw(
        lambda one: one.write_raw(_npy(protocol.pack(one.arrays)[0]), one.layout().replace("5,4", "-5,-4"))
    ),
    "bytes truncated": _raw(lambda one: one.write_raw(_npy(protocol.pack(one.arrays)[0])[:-1], one.layout())),
    "bytes none": _raw(lambda one: one.write_raw(b"", one.layout())),
    "bytes random": _raw(lambda one: one.write_raw(b"\x93NUMPY\x01\x00" + bytes(range(256)), one.layout())),
    "bytes with a lying size": _raw(
        lambda one: one.write_raw(_lying_size(protocol.pack(one.arrays)[0].tobytes()), one.layout())
    ),
    "pickle": _raw(lambda one: one.write_raw(_npy(np.array([{}, "x"], object), allow_pickle=True), one.layout())),
    "zip archive": _raw(lambda one: one.write_raw(b"PK\x03\x04" + bytes(60), one.layout())),
}


def _doubled(reply: Message) -> Message:
    reply.content["again"] = reply.content["arrays"]
    return reply


def _far(arrays: protocol.Arrays) -> protocol.Arrays:
    return {name: array + array.dtype.type(100) for name, array in arrays.items()}
