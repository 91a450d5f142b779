"""Aggregation rules by name or import path: a class of one family, or a plain function."""

import inspect
from collections.abc import Callable
from typing import Any

from strategies.aggregators.base import Rule
from strategies.aggregators.plain import Plain
from tasks.plugin import PluginError, Registry


class AggregatorRegistry(Registry[Rule]):
    """Aggregation rules. What an import path names is a class to build, or a function that is the rule itself."""

    def find(self, name: str) -> Callable[..., Rule]:
        """Return the factory behind a name or path.

        Raises
        ------
        PluginError
            If the name is unknown, the path cannot be imported, or what it names is no rule.
        """
        found: Any = super().find(name)
        if inspect.isclass(found) and issubclass(found, Rule):
            return found
        if inspect.isfunction(found) and len(inspect.signature(found).parameters) >= 2:
            return _factory(found)
        raise PluginError(
            f"{self.kind} {name!r}: expected a subclass of Reweighting or CoordinateWise, "
            f"or a function (updates, prior), got {found!r}"
        )


def _factory(function: Callable[..., Any]) -> Callable[..., Rule]:
    """Return a factory that takes the function's arguments after ``updates`` and ``prior``."""
    signature = inspect.signature(function)

    def build(**arguments: Any) -> Rule:
        return Plain(function, **arguments)

    build.__signature__ = signature.replace(parameters=[*signature.parameters.values()][2:])  # type: ignore[attr-defined]
    return build


AGGREGATORS = AggregatorRegistry("aggregator")
