"""Partitions: how a simulation divides the training examples among its clients (``PARTITIONS``)."""

from tasks.partition.base import PARTITIONS, Indices, Partitioner, PartitionError, by_class, deal
from tasks.partition.flower_datasets import FlowerDatasets
from tasks.partition.partitioners import BernoulliDirichlet, Dirichlet, Iid, Natural, Pathological, QuantitySkew, Shards

__all__ = [
    "PARTITIONS",
    "BernoulliDirichlet",
    "Dirichlet",
    "FlowerDatasets",
    "Iid",
    "Indices",
    "Natural",
    "PartitionError",
    "Partitioner",
    "Pathological",
    "QuantitySkew",
    "Shards",
    "by_class",
    "deal",
]
