"""Aggregation rules: N client updates to one."""

from strategies.aggregators.base import Aggregate, CoordinateWise, Reweighting, Rule, aggregate
from strategies.aggregators.geometric_median import GeometricMedian
from strategies.aggregators.mean import Mean
from strategies.aggregators.median import Median
from strategies.aggregators.registry import AggregatorRegistry, Plain

AGGREGATORS = AggregatorRegistry("aggregator")

AGGREGATORS.register("mean", "McMahan et al., AISTATS 2017")(Mean)
AGGREGATORS.register("geometric-median", "Pillutla, Kakade, Harchaoui, IEEE TSP 2022")(GeometricMedian)
AGGREGATORS.register("median", "Yin, Chen, Ramchandran, Bartlett, ICML 2018")(Median)

__all__ = [
    "AGGREGATORS",
    "Aggregate",
    "CoordinateWise",
    "GeometricMedian",
    "Mean",
    "Median",
    "Plain",
    "Reweighting",
    "Rule",
    "aggregate",
]
