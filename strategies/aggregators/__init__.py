"""Aggregation rules: N client updates to one; and steps before them."""

from strategies.aggregators.aggregation import Aggregate, aggregate
from strategies.aggregators.base import CoordinateWise, Reweighting, Rule
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
from strategies.aggregators.pre_steps import PRE_STEPS, Chain, PreStep, build_pre_steps, build_rule
from strategies.aggregators.registry import AGGREGATORS
from strategies.aggregators.tolerance import Tolerant
from strategies.aggregators.trimmed_mean import TrimmedMean

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
