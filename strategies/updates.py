"""The usable updates of a round, the report on all of its clients, and Flower's records as NumPy arrays."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, Message

from tasks.wire import Arrays

MOST_EXAMPLES = 10**9

Kept = TypeVar("Kept")


class ReplyError(ValueError):
    """A reply that cannot be used; the message is the reason shown to the operator."""


@dataclass(frozen=True)
class Update(Generic[Kept]):
    """A usable reply: what is kept of its arrays, its example count and scalar metrics, and the bare message."""

    client: int
    kept: Kept
    examples: int
    metrics: dict[str, float]
    message: Message


@dataclass
class RoundReport:
    """What became of every client of a round: its weight and distance to the result, or why it was set aside."""

    examples: dict[int, int] = field(default_factory=dict)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    weights: dict[int, float] = field(default_factory=dict)
    distances: dict[int, float] = field(default_factory=dict)
    quarantined: dict[int, str] = field(default_factory=dict)
    roles: dict[int, str] = field(default_factory=dict)
    posteriors: dict[int, float] = field(default_factory=dict)
    noise_levels: dict[int, float] = field(default_factory=dict)
    skipped: str = ""


def too_few(usable: int, needed: int) -> str:
    """Return why a round with too few usable replies is skipped."""
    return f"{usable} usable replies, at least {needed} are needed"


def one_line(text: str) -> str:
    """Return a client's text so that it is safe to print: one line, printable, about 300 characters at most."""
    return "".join(c if c.isprintable() else "?" for c in text[:300]) + ("..." if len(text) > 300 else "")


def to_numpy(record: ArrayRecord) -> Arrays:
    """Return named NumPy arrays, copies."""
    return {name: array.numpy() for name, array in record.items()}


def to_record(arrays: Arrays) -> ArrayRecord:
    """Return named Flower arrays, copies; :func:`tasks.records.view_record` makes none."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
