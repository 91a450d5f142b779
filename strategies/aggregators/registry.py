"""Aggregation rules and steps by name or import path: a class of one family, or a plain function."""

import inspect
from collections.abc import Callable
from typing import Any

from strategies.aggregators.base import Rule
from strategies.aggregators.bulyan import Bulyan
from strategies.aggregators.centered_clipping import CenteredClipping
from strategies.aggregators.distance_aware import DistanceAware
from strategies.aggregators.geometric_median import GeometricMedian
from strategies.aggregators.krum import Krum, MultiKrum
from strategies.aggregators.mea_med import MeaMed
from strategies.aggregators.mean import Mean
from strategies.aggregators.median import Median
from strategies.aggregators.mixing import Bucketing, NearestNeighbourMixing, NormClipping
from strategies.aggregators.per_tensor import PerTensorGeometricMedian
from strategies.aggregators.plain import Plain
from strategies.aggregators.pre_steps import Chain, PreStep
from strategies.aggregators.trimmed_mean import TrimmedMean
from tasks.plugin import PluginError, Registry, parse_args


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
AGGREGATORS.register("mean", "McMahan et al., AISTATS 2017")(Mean)
AGGREGATORS.register("geometric-median", "Pillutla, Kakade, Harchaoui, IEEE TSP 2022")(GeometricMedian)
AGGREGATORS.register("per-tensor-geometric-median", "as in the code of Jiang et al., 2025")(PerTensorGeometricMedian)
AGGREGATORS.register("median", "Yin, Chen, Ramchandran, Bartlett, ICML 2018")(Median)
AGGREGATORS.register("krum", "Blanchard et al., NeurIPS 2017")(Krum)
AGGREGATORS.register("multi-krum", "Blanchard et al., NeurIPS 2017")(MultiKrum)
AGGREGATORS.register("bulyan", "El Mhamdi, Guerraoui, Rouault, ICML 2018")(Bulyan)
AGGREGATORS.register("trimmed-mean", "Yin, Chen, Ramchandran, Bartlett, ICML 2018")(TrimmedMean)
AGGREGATORS.register("mea-med", "Xie, Koyejo, Gupta, 2018")(MeaMed)
AGGREGATORS.register("centered-clipping", "Karimireddy, He, Jaggi, ICML 2021")(CenteredClipping)
AGGREGATORS.register("distance-aware", "FedNoRo; Wu et al., IJCAI 2023")(DistanceAware)

PRE_STEPS = Registry("pre-step", PreStep)
PRE_STEPS.register("nnm", "Allouah et al., AISTATS 2023")(NearestNeighbourMixing)
PRE_STEPS.register("bucketing", "Karimireddy, He, Jaggi, ICLR 2022")(Bucketing)
PRE_STEPS.register("norm-clipping", "Sun, Kairouz, Suresh, McMahan, 2019")(NormClipping)


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
    steps = []
    for step, arguments in parse_args(text).items():
        if not isinstance(arguments, dict):
            raise PluginError(f"pre-step {step!r}: write its arguments as {step} = {{ ... }}, got {arguments!r}")
        steps.append(PRE_STEPS.build(step, arguments))
    return steps
