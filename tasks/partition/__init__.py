"""Partitions: how a simulation divides the training examples among its clients (``PARTITIONS``)."""

from tasks.partition.base import PARTITIONS, Partitioner, PartitionError
from tasks.partition.classes import BernoulliDirichlet, Dirichlet, Pathological, Shards
from tasks.partition.flower_datasets import FlowerDatasets
from tasks.partition.sizes import Iid, Natural, QuantitySkew

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
