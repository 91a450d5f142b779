"""The adapter to flwr-datasets: with a stand-in for the package, with the package if it is there, and without."""

import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tasks.partition import PARTITIONS, PartitionError
from tasks.seeds import rng

LABELS = np.arange(60) % 3
INSTALLED = importlib.util.find_spec("flwr_datasets") is not None


def divide(partitioner: str, num_clients: int = 3, **options: Any) -> Any:
    chosen = PARTITIONS.build("flwr-datasets", {"partitioner": partitioner, "options": options})
    return chosen(LABELS, num_clients, rng(1, "partition"))


class Table(dict[str, list[int]]):
    """Stands for datasets.Dataset."""

    @staticmethod
    def from_dict(columns: dict[str, list[int]]) -> "Table":
        return Table(columns)


class ByLabelPartitioner:
    """Gives each label to one partition; ``skip`` leaves the examples of one label out."""

    dataset: Table

    def __init__(self, num_partitions: int, partition_by: str, seed: int, skip: int = -1, refuse: bool = False) -> None:
        if refuse:
            raise ValueError("refused")
        self.num_partitions, self.partition_by, self.seed, self.skip = num_partitions, partition_by, seed, skip

    def load_partition(self, number: int) -> dict[str, list[int]]:
        labels, places = self.dataset[self.partition_by], self.dataset["place"]
        assert 0 <= self.seed < 2**31
        return {"place": [p for p, y in zip(places, labels, strict=True) if y == number and y != self.skip]}


class TwoPartitioner(ByLabelPartitioner):
    """Makes two partitions whatever it is told."""

    def __init__(self) -> None:
        super().__init__(2, "label", 0)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    package, datasets = ModuleType("flwr_datasets.partitioner"), ModuleType("datasets")
    vars(package).update(ByLabelPartitioner=ByLabelPartitioner, TwoPartitioner=TwoPartitioner)
    vars(datasets).update(Dataset=Table)
    monkeypatch.setitem(sys.modules, "flwr_datasets", ModuleType("flwr_datasets"))
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", package)
    monkeypatch.setitem(sys.modules, "datasets", datasets)


@pytest.mark.usefixtures("stand_in")
def test_its_partitions_become_index_lists() -> None:
    parts = divide("ByLabelPartitioner")
    for label, part in enumerate(parts):
        np.testing.assert_array_equal(part, np.flatnonzero(label == LABELS))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("partitioner", "options", "message"),
    [
        ("ByLablePartitioner", {}, "did you mean 'ByLabelPartitioner'"),
        ("ByLabelPartitioner", {"alpha": 1}, "unexpected keyword argument 'alpha'"),
        ("ByLabelPartitioner", {"refuse": True}, "of flwr-datasets: refused"),
        ("ByLabelPartitioner", {"skip": 2}, "some examples found no client; change the options"),
        ("TwoPartitioner", {}, "it makes 2 partitions for 3 clients"),
    ],
)
def test_what_does_not_fit_is_explained(partitioner: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        divide(partitioner, **options)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", None)
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    with pytest.raises(PartitionError, match="pip install flwr-datasets"):
        divide("IidPartitioner")


@pytest.mark.skipif(not INSTALLED, reason="flwr-datasets is not installed")
@pytest.mark.parametrize(
    ("partitioner", "options"),
    [
        ("IidPartitioner", {}),
        ("LinearPartitioner", {}),
        ("DirichletPartitioner", {"alpha": 5.0, "min_partition_size": 1}),
        ("ShardPartitioner", {"num_shards_per_partition": 2}),
        ("NaturalIdPartitioner", {"partition_by": "label"}),
    ],
)
def test_real_partitioners(partitioner: str, options: dict[str, Any]) -> None:
    first, again = divide(partitioner, **options), divide(partitioner, **options)
    assert sorted(np.concatenate(first).tolist()) == list(range(60))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
