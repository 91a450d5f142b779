"""Aggregation rules and steps by name or import path: a class of one family, or a plain function."""

import inspect
from collections.abc import Callable
from typing import Any

from strategies.aggregators.base import Rule
from strategies.aggregators.plain import Plain
from strategies.aggregators.pre_steps import Chain, PreStep
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
PRE_STEPS = Registry("pre-step", PreStep)


def build_rule(name: str, args: str = "", pre_steps: str = "") -> Rule:
    """Build a rule and the steps before it; these are inline TOML such as ``nnm = { f = 4 }, bucketing = {}``.

    Raises
    ------
    PluginError
        If a name is unknown, an argument does not fit, or rule and steps do not go together.
    """
    rule, steps = AGGREGATORS.build(name, args), build_pre_steps(pre_steps)
    try:
        return Chain(steps, rule) if steps else rule
    except ValueError as error:
        raise PluginError(str(error)) from error


def build_pre_steps(text: str) -> list[PreStep]:
    """Build the steps that inline TOML such as ``nnm = { f = 4 }, bucketing = {}`` names, in its order.

    Raises
    ------
    PluginError
        If a name is unknown, or an argument does not fit.
    """
    return list(PRE_STEPS.build_each(text).values())
