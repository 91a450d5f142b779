"""Aggregation rules: N client updates to one; and steps before them."""

from strategies.aggregators.aggregation import Aggregate, aggregate
from strategies.aggregators.base import CoordinateWise, Reweighting, Rule, Tolerant
from strategies.aggregators.coordinatewise import Bulyan, MeaMed, Median, TrimmedMean
from strategies.aggregators.geometric_median import GeometricMedian, PerTensorGeometricMedian
from strategies.aggregators.preaggregation import (
    PRE_STEPS,
    Bucketing,
    Chain,
    NearestNeighbourMixing,
    NormClipping,
    PreStep,
    build_pre_steps,
    build_rule,
)
from strategies.aggregators.registry import AGGREGATORS, Plain
from strategies.aggregators.weighted import CenteredClipping, DistanceAware, Krum, Mean, MultiKrum

__all__ = [
    "AGGREGATORS",
    "PRE_STEPS",
    "Aggregate",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "Chain",
    "CoordinateWise",
    "DistanceAware",
    "GeometricMedian",
    "Krum",
    "MeaMed",
    "Mean",
    "Median",
    "MultiKrum",
    "NearestNeighbourMixing",
    "NormClipping",
    "PerTensorGeometricMedian",
    "Plain",
    "PreStep",
    "Reweighting",
    "Rule",
    "Tolerant",
    "TrimmedMean",
    "aggregate",
    "build_pre_steps",
    "build_rule",
]
