"""Registry of aggregators, by name or import path: a class of one family, or a plain function."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from strategies.aggregators.base import Aggregator, Combine
from strategies.gram import Doubles, UpdateMatrix
from tasks.plugins import PluginError, Registry


class Plain(Aggregator):
    """A function ``(updates (N, P), client_weights (N,), **arguments) -> (P,)`` as an aggregator.

    It is the shortest way to an aggregator of your own; unlike the two families it gets one more copy of all updates.
    """

    def __init__(self, function: Callable[..., Any], **arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def prepare(self, matrix: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        """Call the function once, on everything."""
        expected = matrix.vectors[0].shape
        value = np.asarray(
            self.function(matrix.values(np.stack(matrix.vectors)), client_weights, **self.arguments), np.float64
        )
        if value.shape != expected:
            raise ValueError(f"{self} must return {expected} values, got {value.shape}")
        return lambda columns, _: value[columns], None

    def __str__(self) -> str:
        """Return the function's name."""
        return str(getattr(self.function, "__qualname__", self.function))


class AggregatorRegistry(Registry[Aggregator]):
    """Aggregators. What an import path names is a class to build, or a function that is the aggregator itself."""

    def find(self, name: str) -> Callable[..., Aggregator]:
        """Return the factory behind a name or path.

        Raises
        ------
        PluginError
            If the name is unknown, the path cannot be imported, or what it names is no aggregator.
        """
        found: Any = super().find(name)
        if inspect.isclass(found) and issubclass(found, Aggregator):
            return found
        if inspect.isfunction(found) and len(inspect.signature(found).parameters) >= 2:
            return _factory(found)
        raise PluginError(
            f"{self.kind} {name!r}: expected a subclass of Reweighting or CoordinateWise, "
            f"or a function (updates, client_weights), got {found!r}"
        )


def _factory(function: Callable[..., Any]) -> Callable[..., Aggregator]:
    """Return a factory that takes the function's arguments after ``updates`` and ``client_weights``."""
    signature = inspect.signature(function)

    def build(**arguments: Any) -> Aggregator:
        return Plain(function, **arguments)

    build.__signature__ = signature.replace(parameters=[*signature.parameters.values()][2:])  # type: ignore[attr-defined]
    return build


AGGREGATORS = AggregatorRegistry("aggregator")
