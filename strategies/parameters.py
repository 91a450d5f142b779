"""Parameters of a model as one vector of floats, which is what aggregators work on.

One vector per client is all that is kept of its parameters: each is made straight from the client's arrays, and the
global model is subtracted in place.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from strategies.gram import Vector
from tasks.extra_arrays import base_name, is_named, network_of
from tasks.protocol import Arrays


@dataclass(frozen=True)
class NetworkPart:
    """Where a network's parameters lie in a vector, and the lengths of its parameter arrays."""

    number: int
    place: slice
    sizes: tuple[int, ...]


class Parameters:
    """The global model's parameters, and those of other models as steps away from it, vectors of length P.

    A model with float64 parameters has float64 vectors, any other float32 ones.

    Parameters
    ----------
    model
        Named arrays of the global model.
    buffers
        Names of the arrays that are not parameters, in each network; arrays of integers and named arrays of a method
        never are.

    ``model`` are the global model's named arrays, buffers too.
    """

    def __init__(self, model: Arrays, buffers: Collection[str] = ()) -> None:
        floats = {
            name: array
            for name, array in model.items()
            if array.dtype.kind == "f" and base_name(name) not in buffers and not is_named(name)
        }
        self.model = model
        self._shapes = {name: array.shape for name, array in floats.items()}
        self._dtype = np.float64 if any(array.dtype == np.float64 for array in floats.values()) else np.float32
        self._sizes = tuple(array.size for array in floats.values())
        self._start = self._flat(model)

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        """Type of the numbers of a vector."""
        return np.dtype(self._dtype)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the parameter arrays, in the order in which they lie in a vector."""
        return self._sizes

    @property
    def networks(self) -> list[NetworkPart]:
        """The part of each network, the model itself first; its arrays lie one after the other."""
        sizes: dict[int, list[int]] = {1: []}
        for name, size in zip(self._shapes, self._sizes, strict=True):
            sizes.setdefault(network_of(name), []).append(size)
        found, start = [], 0
        for number, own in sizes.items():
            found.append(NetworkPart(number, slice(start, start + sum(own)), tuple(own)))
            start += sum(own)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def step_to(self, arrays: Arrays) -> Vector:
        """Return how far a model with these arrays lies from the global model, (P,)."""
        step = self._flat(arrays)
        step -= self._start
        return step

    def after(self, step: Vector) -> Arrays:
        """Return the parameters of the model that lies a step (P,) away from the global model."""
        parts = np.split(self._start + step, np.cumsum(self._sizes)[:-1])
        shapes = self._shapes.items()
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes, parts, strict=True)}

    def _flat(self, arrays: Arrays) -> Vector:
        none = np.empty(0, self._dtype)  # for a model without parameters
        return np.concatenate([none, *(arrays[name].reshape(-1) for name in self._shapes)], dtype=self._dtype)


def as_sent(arrays: Arrays, model: Arrays) -> Arrays:
    """Return the arrays in the order, and each in the dtype, in which ``model`` was sent out; integers are rounded."""
    restored: Arrays = {}
    for name, sent in model.items():
        value = arrays[name]
        integer = sent.dtype.kind in "iub" and value.dtype.kind == "f"
        restored[name] = np.asarray(np.rint(value) if integer else value, sent.dtype)  # rint makes a scalar of ()
    return restored
