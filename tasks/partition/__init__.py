"""Partitions: how a simulation divides the training examples among its clients (``PARTITIONS``)."""

from tasks.partition.base import PARTITIONS, Partitioner, PartitionError
from tasks.partition.flower_datasets import FlowerDatasets
from tasks.partition.partitioners import BernoulliDirichlet, Dirichlet, Iid, Natural, Pathological, QuantitySkew, Shards

__all__ = [
    "PARTITIONS",
    "BernoulliDirichlet",
    "Dirichlet",
    "FlowerDatasets",
    "Iid",
    "Natural",
    "PartitionError",
    "Partitioner",
    "Pathological",
    "QuantitySkew",
    "Shards",
]
