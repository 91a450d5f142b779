"""Strategy state in a checkpoint: what a strategy keeps between rounds, as JSON and named arrays, and back.

A strategy says by ``state_dict()`` what its next rounds need, and takes it back by ``load_state_dict(state)``. A state
is a dictionary of these values, nested as you like, and comes back equal and with the same types:

- None, bool, int, float (also nan, inf and -0.0), str, bytes;
- NumPy arrays and NumPy scalars of the dtypes in :data:`tasks.protocol.DTYPES`, and Flower's ArrayRecord;
- dict, list, tuple, set and frozenset, but no classes derived from them; the keys of a dict are any of the values.

Of a strategy without these two methods, such as Flower's own, every attribute that holds such a value is saved, and so
are the strategies and server optimizers that it wraps. :func:`unsaved_attributes` names the others.
"""

import dis
import json
import math
from collections.abc import Callable
from functools import partial
from inspect import isroutine
from itertools import chain, count
from logging import Logger, LoggerAdapter
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy

from server_app.storage.checkpoints import CheckpointError
from strategies.server_optimizers import ServerOptimizer, attributes_of
from tasks.protocol import DTYPES, Arrays

DEEPEST = 50
ALLOWED = "None, bool, int, float, str, bytes, NumPy arrays, ArrayRecord and dict, list, tuple, set, frozenset of these"
NO_MEMORY = (type, partial, ModuleType, Logger, LoggerAdapter)  # rebuilt with the strategy, as functions are


def strategy_state(strategy: Strategy | ServerOptimizer) -> tuple[Arrays, dict[str, Any]]:
    """Return what a strategy keeps between rounds, such as FedAdam's moments: its arrays, and the rest as JSON.

    Raises
    ------
    CheckpointError
        If ``state_dict()`` returns what a checkpoint cannot hold, or a strategy has only one of the two methods.
    """
    writer = _StateWriter()
    state = writer.part(strategy)
    return writer.arrays, state


def restore_strategy(strategy: Strategy | ServerOptimizer, arrays: Arrays, state: dict[str, Any]) -> None:
    """Put back what :func:`strategy_state` returned.

    Raises
    ------
    CheckpointError
        If it is not the state of such a strategy.
    """
    try:
        _restore(strategy, arrays, state)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"the checkpoint's state of {type(strategy).__name__} cannot be loaded ({type(error).__name__}: {error}): "
            "it was written by another version of Winnow or of the strategy; resume with that one, or start a new run"
        ) from error


def unsaved_attributes(strategy: Strategy | ServerOptimizer) -> list[str]:
    """Return the attributes that a checkpoint leaves out although they might change between rounds, in their order.

    None for a strategy with a ``state_dict`` of its own. Functions, classes, modules and loggers do not count: the
    resumed run builds them anew. Attributes of a wrapped strategy are called ``inner.name``.

    Raises
    ------
    CheckpointError
        As :func:`strategy_state` does.
    """
    writer = _StateWriter()
    writer.part(strategy)
    return writer.lost


class _UnsupportedError(ValueError):
    """A value that a checkpoint cannot hold: where it lies, and what it is."""

    def __init__(self, keys: tuple[object, ...], what: str) -> None:
        super().__init__("".join(f"[{key!r}]" for key in keys) + f" is {what}")


class _StateWriter:
    """Turns states into JSON and named arrays, and collects the attributes that have to be left out."""

    def __init__(self) -> None:
        self.arrays: Arrays = {}
        self.lost: list[str] = []
        self._seen: set[int] = set()
        self._prefix = ""  # what the names of the next arrays begin with

    def part(self, part: Strategy | ServerOptimizer, path: str = "") -> dict[str, Any]:
        """Return the state of a strategy or server optimizer; ``path``, such as ``inner.``, says whose it is."""
        self._seen.add(id(part))
        state = self._own_state(part, path) if _has_state(part) else None
        answered = _answered_for(part)
        attributes, parts = ({}, {}) if answered is None else self._reflect(part, path, answered)
        return {"state": state, "attributes": attributes, "parts": parts}

    def _reflect(
        self, part: Strategy | ServerOptimizer, path: str, answered: frozenset[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the attributes that can be kept, and the strategies and server optimizers among them."""
        attributes: dict[str, Any] = {}
        parts: dict[str, Any] = {}
        for name, value in attributes_of(part).items():
            if isinstance(value, Strategy | ServerOptimizer):
                if name not in answered and id(value) not in self._seen:  # a wrapped strategy may know its wrapper
                    parts[name] = self.part(value, f"{path}{name}.")
            elif not isroutine(value) and not isinstance(value, NO_MEMORY):
                if (tree := self._attribute(value, path + name)) is not None:
                    attributes[name] = tree[0]
                elif name not in answered:
                    self.lost.append(path + name)
        return attributes, parts

    def _own_state(self, part: Any, path: str) -> Any:
        label = f"{type(part).__name__}.state_dict()"
        state = part.state_dict()
        if type(state) is not dict:
            raise CheckpointError(f"{label} must return a dict, got {type(state).__name__}")
        self._prefix = path.removesuffix(".")
        try:
            return self._encode(state, ())
        except _UnsupportedError as error:
            raise CheckpointError(
                f"{label}{error}, which a checkpoint cannot hold: let state_dict turn it into {ALLOWED}, and "
                "load_state_dict turn it back"
            ) from None

    def _attribute(self, value: object, name: str) -> tuple[Any] | None:
        """Return an attribute's value as JSON, None if a checkpoint cannot hold it."""
        before = dict(self.arrays)
        self._prefix = name
        try:
            return (self._encode(value, ()),)
        except _UnsupportedError:
            self.arrays = before
            return None

    def _encode(self, value: Any, keys: tuple[object, ...]) -> Any:
        """Return a value as JSON: what JSON has no word for is an object of one member, which names the type."""
        kind = type(value)
        if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
            return value
        if len(keys) > DEEPEST:
            raise _UnsupportedError((), f"nested more than {DEEPEST} levels deep, or holds itself")
        if kind is list:
            return [self._encode(item, (*keys, i)) for i, item in enumerate(value)]
        if kind is dict:
            pairs = [(key, item, (*keys, key)) for key, item in value.items()]
            return {"dict": [[self._encode(key, place), self._encode(item, place)] for key, item, place in pairs]}
        if kind is tuple:
            return {"tuple": [self._encode(item, (*keys, i)) for i, item in enumerate(value)]}
        if kind in (set, frozenset):
            return {kind.__name__: sorted((self._encode(item, (*keys, item)) for item in value), key=json.dumps)}
        return self._encode_leaf(value, keys)

    def _encode_leaf(self, value: Any, keys: tuple[object, ...]) -> dict[str, Any]:
        kind = type(value)
        if kind is float:
            return {"float": repr(value)}
        if kind is bytes:
            return {"bytes": value.hex()}
        if kind is np.ndarray:
            turned = value.flags.f_contiguous and not value.flags.c_contiguous  # sums depend on the order in memory
            return {"fortran": self._keep(value.T, keys)} if turned else {"array": self._keep(value, keys)}
        if kind is ArrayRecord:
            return {"record": [[key, self._keep(array.numpy(), (*keys, key))] for key, array in value.items()]}
        if isinstance(value, np.generic):
            _check_dtype(value.dtype, keys)
            return {"scalar": [value.dtype.name, value.tobytes().hex()]}
        raise _UnsupportedError(keys, f"a {kind.__module__}.{kind.__qualname__}")

    def _keep(self, array: npt.NDArray[Any], keys: tuple[object, ...]) -> str:
        """Keep an array and return its name: its keys, and a number if another array has the same."""
        _check_dtype(array.dtype, keys)
        label = "/".join([self._prefix] * bool(self._prefix) + [str(key) for key in keys])
        label = label.encode("ascii", "backslashreplace").decode()
        names = chain([label], (f"{label}#{number}" for number in count(2)))
        name = next(name for name in names if name not in self.arrays)
        self.arrays[name] = array
        return name


def _check_dtype(dtype: np.dtype[Any], keys: tuple[object, ...]) -> None:
    if dtype.name not in DTYPES or not dtype.isnative:
        raise _UnsupportedError(keys, f"an array or scalar of dtype {dtype}")


def _decode(tree: Any, arrays: Arrays) -> Any:
    """Return the value behind JSON from :class:`_StateWriter`."""
    if isinstance(tree, list):
        return [_decode(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "dict":
        return {_decode(key, arrays): _decode(value, arrays) for key, value in content}
    containers: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
    if kind in containers:
        return containers[kind](_decode(content, arrays))
    leaves: dict[str, Callable[[Any], Any]] = {
        "float": float,
        "bytes": bytes.fromhex,
        "array": lambda name: arrays[name],
        "fortran": lambda name: arrays[name].T,
        "record": lambda pairs: ArrayRecord({key: Array(arrays[name]) for key, name in pairs}),
        "scalar": lambda parts: np.frombuffer(bytes.fromhex(parts[1]), parts[0])[0],
    }
    return leaves[kind](content)


def _restore(part: Any, arrays: Arrays, state: dict[str, Any]) -> None:
    if _has_state(part) != (state["state"] is not None):
        raise ValueError("one of the two keeps its state by state_dict, and the other does not")
    for name, tree in state["attributes"].items():
        setattr(part, name, _decode(tree, arrays))
    for name, inner in state["parts"].items():
        _restore(getattr(part, name), arrays, inner)
    if state["state"] is not None:
        part.load_state_dict(_decode(state["state"], arrays))


def _has_state(part: Strategy | ServerOptimizer) -> bool:
    """Tell whether a strategy says itself what it keeps.

    Raises
    ------
    CheckpointError
        If it has only one of the two methods for that.
    """
    has = {name: callable(getattr(part, name, None)) for name in ("state_dict", "load_state_dict")}
    if len(set(has.values())) > 1:
        there, missing = sorted(has, key=lambda name: not has[name])
        raise CheckpointError(f"{type(part).__name__} has {there} but no {missing}: write both methods, or neither")
    return has["state_dict"]


def _answered_for(part: Strategy | ServerOptimizer) -> frozenset[str] | None:
    """Return the attributes that the state_dict of a strategy's class answers for; None: all of them.

    A class below the one with the method may have added some. All others are set in the constructors above it.
    """
    if not _has_state(part):
        return frozenset()
    owner = next(kind for kind in type(part).__mro__ if "state_dict" in vars(kind))
    if owner in (ServerOptimizer, type(part)):
        return None
    constructors = [vars(kind)["__init__"] for kind in owner.__mro__ if hasattr(vars(kind).get("__init__"), "__code__")]
    steps = [step for constructor in constructors for step in dis.get_instructions(constructor)]
    return frozenset(step.argval for step in steps if step.opname == "STORE_ATTR")
