"""Aggregators: N client updates to one; and pre-aggregators, which come before them."""

from strategies.aggregators.aggregation import Aggregate, aggregate
from strategies.aggregators.base import Aggregator, CoordinateWise, Reweighting, Tolerant
from strategies.aggregators.coordinatewise import Bulyan, MeaMed, Median, TrimmedMean
from strategies.aggregators.geometric_median import GeometricMedian, PerTensorGeometricMedian
from strategies.aggregators.preaggregation import (
    PRE_AGGREGATORS,
    Bucketing,
    Chain,
    NearestNeighbourMixing,
    NormClipping,
    PreAggregator,
    build_aggregator,
    build_pre_aggregators,
)
from strategies.aggregators.registry import AGGREGATORS, Plain
from strategies.aggregators.weighted import CenteredClipping, DistanceAware, Krum, Mean, MultiKrum
from strategies.gram import Doubles, Vector, squared_distances

__all__ = [
    "AGGREGATORS",
    "PRE_AGGREGATORS",
    "Aggregate",
    "Aggregator",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "Chain",
    "CoordinateWise",
    "DistanceAware",
    "Doubles",
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
    "PreAggregator",
    "Reweighting",
    "Tolerant",
    "TrimmedMean",
    "Vector",
    "aggregate",
    "build_aggregator",
    "build_pre_aggregators",
    "squared_distances",
]
