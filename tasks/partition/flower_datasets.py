"""Partitioners of the package flwr-datasets, any of them; it is not installed with Winnow."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.partition.base import NOBODY, PARTITIONS, Indices, Partitioner, PartitionError
from tasks.plugins import did_you_mean


@PARTITIONS.register("flwr-datasets", "Flower Labs, flwr-datasets", "https://flower.ai/docs/datasets/")
@dataclass(frozen=True, kw_only=True)
class FlowerDatasets(Partitioner):
    """Divide with a partitioner of flwr-datasets (install that package first).

    The number of
    partitions, the column "label" and a seed from the run's own are filled in where it takes them.

    Parameters
    ----------
    partitioner
        Its class, such as "DirichletPartitioner".
    options
        Arguments of the class, but for the number of partitions, the column and the seed.
    """

    partitioner: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_random(self) -> bool:
        """It redraws by itself."""
        return False

    def owners(self, labels: Indices, num_clients: int, rng: np.random.Generator) -> Indices:
        """Ask the partitioner for each client's examples.

        Raises
        ------
        PartitionError
            If flwr-datasets is missing, has no such partitioner, or that one refuses.
        """
        partitioner = self._build(num_clients, int(rng.integers(2**31)))
        table = {"label": labels.tolist(), "place": list(range(len(labels)))}
        owners = np.full(len(labels), NOBODY, dtype=np.int64)
        try:
            partitioner.dataset = _module("datasets").Dataset.from_dict(table)
            if partitioner.num_partitions != num_clients:
                raise ValueError(f"it makes {partitioner.num_partitions} partitions for {num_clients} clients")
            for client in range(num_clients):
                owners[partitioner.load_partition(client)["place"]] = client
        except ValueError as error:
            raise PartitionError(f"{self.partitioner} of flwr-datasets: {error}") from error
        return owners

    def remedy(self) -> str:
        """Say whose arguments decide."""
        return f"change the options of {self.partitioner}, or choose another partition"

    def _build(self, num_clients: int, seed: int) -> Any:
        module = _module("flwr_datasets.partitioner")
        names = [name for name in dir(module) if name.endswith("Partitioner") and name != "Partitioner"]
        if self.partitioner not in names:
            raise PartitionError(f"flwr-datasets has no {self.partitioner!r}{did_you_mean(self.partitioner, names)}")
        factory = getattr(module, self.partitioner)
        accepted = inspect.signature(factory).parameters
        context = {"num_partitions": num_clients, "partition_by": "label", "seed": seed}
        try:
            return factory(**{key: value for key, value in context.items() if key in accepted} | dict(self.options))
        except (TypeError, ValueError) as error:
            raise PartitionError(f"{self.partitioner} of flwr-datasets: {error}") from error


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise PartitionError(
            f"this partition needs the package flwr-datasets ({error}); install it with 'pip install flwr-datasets', "
            "or choose another partition"
        ) from error
