"""Aggregators: N client updates to one; and pre-aggregators, which come before them."""

from strategies.aggregators.aggregation import Aggregate, aggregate
from strategies.aggregators.base import Aggregator, CoordinateWise, Reweighting, Tolerant
from strategies.aggregators.coordinatewise import Bulyan, MeaMed, Median, TrimmedMean
from strategies.aggregators.geometric_median import GeometricMedian, PerTensorGeometricMedian
from strategies.aggregators.largest_variance import CovarianceFilter, SmallestMaximumEigenvalueAveraging
from strategies.aggregators.minimum_diameter import MinimumDiameterAveraging
from strategies.aggregators.preaggregation import (
    PRE_AGGREGATORS,
    AdaptiveRobustClipping,
    Bucketing,
    Chain,
    NearestNeighbourMixing,
    NormClipping,
    PreAggregator,
    build_aggregator,
    build_pre_aggregators,
)
from strategies.aggregators.registry import AGGREGATORS, Plain
from strategies.aggregators.weighted import CenteredClipping, DistanceAware, Krum, Mean, Monna, MultiKrum
from strategies.gram import Doubles, Vector, squared_distances

__all__ = [
    "AGGREGATORS",
    "PRE_AGGREGATORS",
    "AdaptiveRobustClipping",
    "Aggregate",
    "Aggregator",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "Chain",
    "CoordinateWise",
    "CovarianceFilter",
    "DistanceAware",
    "Doubles",
    "GeometricMedian",
    "Krum",
    "MeaMed",
    "Mean",
    "Median",
    "MinimumDiameterAveraging",
    "Monna",
    "MultiKrum",
    "NearestNeighbourMixing",
    "NormClipping",
    "PerTensorGeometricMedian",
    "Plain",
    "PreAggregator",
    "Reweighting",
    "SmallestMaximumEigenvalueAveraging",
    "Tolerant",
    "TrimmedMean",
    "Vector",
    "aggregate",
    "build_aggregator",
    "build_pre_aggregators",
    "squared_distances",
]
