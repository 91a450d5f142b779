"""A plain function as an aggregation rule."""

from collections.abc import Callable
from typing import Any

import numpy as np

from strategies.aggregators.base import Combine, Rule
from strategies.gram import Doubles
from strategies.points import Points


class Plain(Rule):
    """A function ``(updates (N, P), prior (N,), **arguments) -> (P,)`` as a rule.

    It is the shortest way to a rule of your own; unlike the two families it gets one more copy of all updates.
    """

    def __init__(self, function: Callable[..., Any], **arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Call the function once, on everything."""
        expected = points.vectors[0].shape
        value = np.asarray(self.function(points.values(np.stack(points.vectors)), prior, **self.arguments), np.float64)
        if value.shape != expected:
            raise ValueError(f"{self} must return {expected} values, got {value.shape}")
        return lambda columns, _: value[columns], None

    def __str__(self) -> str:
        """Return the function's name."""
        return str(getattr(self.function, "__qualname__", self.function))
