"""Extra arrays: what travels beside a model in the same set of arrays, further networks and named arrays of a method.

A client method that trains more than one network, or exchanges more than weights (class centroids, the parameters of a
mixture), says so: ``networks`` and ``extra_arrays``. The server sends what it has combined with the model, clients
return arrays of the same names, shapes and dtypes. So all of it is checked, limited in size and saved as the model is.

Names say what is what: ``network-2/conv.weight`` is a tensor of the second network, ``extra/centroids`` a named array
in both directions, and ``given/`` begins what a strategy sends and nobody returns.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tasks.protocol import DTYPES, Arrays

Doubles = npt.NDArray[np.float64]
Rule = Callable[[Doubles, Doubles, Doubles], Doubles]
"""``(values (N, ...), weights (N,) with sum 1, present value (...)) -> new value (...)`` over N clients, in float64."""

NAMED, GIVEN = "extra/", "given/"
NETWORK = re.compile(r"network-(\d+)/")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
V = TypeVar("V")


def weighted_mean(values: Doubles, weights: Doubles, present: Doubles) -> Doubles:
    """Return the mean over clients; one of them can move it anywhere."""
    return np.asarray(np.tensordot(weights, values, axes=1))


def coordinate_median(values: Doubles, weights: Doubles, present: Doubles) -> Doubles:
    """Return the median over clients, number by number; fewer than half of them cannot move it beyond the others."""
    return np.asarray(np.median(values, axis=0))


@dataclass(frozen=True)
class ExtraArray:
    """One named array that a method exchanges with the server.

    Attributes
    ----------
    name
        Letters, digits, ``.``, ``_`` and ``-``.
    shape, dtype
        What it always has, in both directions. It travels in full, whatever ``federation.wire`` says.
    start
        What clients are sent before the first round: a number for all places, or an array.
    rule
        How the server combines the arrays of a round; any function of this form.
    robust_rule
        The same where the aggregator is a robust one.
    remembered
        Whether the last array of every client that has ever replied takes part, weighted by example counts, and not
        only those of the round.

    Raises
    ------
    ValueError
        If a name, shape or dtype cannot travel, or ``start`` does not have that shape.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    start: Any = 0.0
    rule: Rule = weighted_mean
    robust_rule: Rule = coordinate_median
    remembered: bool = False

    def __post_init__(self) -> None:
        if not PLAIN_NAME.fullmatch(self.name):
            raise ValueError(f"extra array {self.name!r}: a name is 1 to 100 letters, digits, '.', '_' and '-'")
        if self.dtype not in DTYPES or any(type(size) is not int or size < 0 for size in self.shape):
            raise ValueError(
                f"extra array {self.name!r}: expected whole sizes and one of {', '.join(DTYPES)}, got shape "
                f"{self.shape} of {self.dtype}"
            )
        if np.shape(self.start) not in ((), self.shape) or not np.isfinite(self.start).all():
            raise ValueError(f"extra array {self.name!r}: start must be a number or a finite array of {self.shape}")

    def first(self) -> npt.NDArray[np.generic]:
        """Return the array before the first round."""
        return np.broadcast_to(np.asarray(self.start, self.dtype), self.shape).copy()


def network_of(name: str) -> int:
    """Return which network an array belongs to, 1 for the model itself and for what is no network's.

    >>> network_of("conv.weight"), network_of("network-2/conv.weight")
    (1, 2)
    """
    found = NETWORK.match(name)
    return int(found[1]) if found else 1


def base_name(name: str) -> str:
    """Return what an array is called within its own network.

    >>> base_name("network-2/conv.weight"), base_name("conv.weight"), base_name("given/network-1/conv.weight")
    ('conv.weight', 'conv.weight', 'conv.weight')
    """
    return NETWORK.sub("", name.removeprefix(GIVEN), count=1)


def is_beside(name: str) -> bool:
    """Tell whether an array is no part of the model itself."""
    return name.startswith((NAMED, GIVEN)) or NETWORK.match(name) is not None


def is_named(name: str) -> bool:
    """Tell whether it is a named array that both sides exchange."""
    return name.startswith(NAMED)


def travels_in_full(name: str) -> bool:
    """Tell whether an array is no network's: whatever the format of the model, its numbers are not rounded."""
    return is_named(name) or (is_given(name) and not NETWORK.match(name.removeprefix(GIVEN)))


def is_given(name: str) -> bool:
    """Tell whether an array only goes from the server to a client."""
    return name.startswith(GIVEN)


def of_network(number: int, arrays: Mapping[str, V]) -> dict[str, V]:
    """Return a network's arrays under the names that they have beside the model.

    >>> of_network(2, {"weight": 1})
    {'network-2/weight': 1}
    """
    return {f"network-{number}/{name}": array for name, array in arrays.items()}


def further_networks(arrays: Mapping[str, V]) -> dict[int, dict[str, V]]:
    """Return the arrays of each network but the first by its number, under their own names.

    >>> further_networks({"weight": 1, "network-2/weight": 2, "extra/x": 3})
    {2: {'weight': 2}}
    """
    found: dict[int, dict[str, V]] = {}
    for name, array in arrays.items():
        if match := NETWORK.match(name):
            found.setdefault(int(match[1]), {})[name[match.end() :]] = array
    return dict(sorted(found.items()))


def without_prefix(prefix: str, arrays: Mapping[str, V]) -> dict[str, V]:
    """Return the arrays whose names begin with a prefix, without it.

    >>> without_prefix("extra/", {"weight": 1, "extra/centroids": 2})
    {'centroids': 2}
    """
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def model_part(arrays: Mapping[str, V]) -> dict[str, V]:
    """Return the arrays of the model itself.

    >>> model_part({"weight": 1, "network-2/weight": 2, "extra/x": 3, "given/y": 4})
    {'weight': 1}
    """
    return {name: array for name, array in arrays.items() if not is_beside(name)}


def returned(name: str, sent: Arrays, found: Mapping[str, Any]) -> Arrays:
    """Return a method's named arrays as they are sent, in the dtypes in which they came.

    Raises
    ------
    ValueError
        If one is missing, unknown or has another shape; the message names the method's class ``name``.
    """
    if found.keys() != sent.keys():
        expected, got = (", ".join(sorted(names)) or "none" for names in (sent, found))
        raise ValueError(f"{name} must return the named arrays {expected}, got {got}")
    arrays = {key: np.asarray(found[key], sent[key].dtype) for key in sent}
    for key, array in arrays.items():
        if array.shape != sent[key].shape:
            raise ValueError(f"{name}: the named array {key} must have the shape {sent[key].shape}, got {array.shape}")
    return arrays
