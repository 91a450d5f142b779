"""Other implementations of the aggregation rules, ready to be measured beside ours: NumPy, SciPy, geom-median, Flower.

Flower's strategies take the replies of a round, whose arrays they unpack from bytes first; some of them empty the
replies, so that every call gets new ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import Bulyan, FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum, Strategy
from flwr.serverapp.strategy.bulyan import aggregate_n_closest_weights
from geom_median.numpy import compute_geometric_median
from scipy.spatial.distance import pdist
from scipy.stats import trim_mean

from strategies.gram import Doubles, Vector

Call = Callable[[], Any]
Way = Callable[[], Call]  # prepares one call, so that what the call consumes is not measured


@dataclass(frozen=True)
class Case:
    """N updates (P,), equal in weight, and how many of them a rule shall withstand."""

    updates: list[Vector]

    @property
    def client_weights(self) -> Doubles:
        """Equal weights, (N,)."""
        return np.full(len(self.updates), 1 / len(self.updates))

    @property
    def f(self) -> int:
        """A fifth of the clients, for all rules but Bulyan."""
        return len(self.updates) // 5

    @property
    def share(self) -> float:
        """The share of the clients that SciPy and Flower round down to f."""
        return (self.f + 0.5) / len(self.updates)

    @property
    def f_bulyan(self) -> int:
        """A fifth of the clients, or what Bulyan can withstand."""
        return min(self.f, (len(self.updates) - 3) // 4)


def flower(case: Case, strategy: Strategy) -> Way:
    """Return a strategy's way from the replies, which hold one array each, to the new model."""

    def prepare() -> Call:
        replies: Any = [SimpleNamespace(content=_content(u), has_error=lambda: False) for u in case.updates]
        return lambda: strategy.aggregate_train(1, replies)

    return prepare


def _content(update: Vector) -> RecordDict:
    arrays = ArrayRecord({"w": Array(update)})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 500})})


def peers(case: Case) -> dict[str, dict[str, Way]]:
    """Return the other implementations of each rule, by the rule's name."""
    updates, n, f = case.updates, len(case.updates), case.f

    def plain(call: Call) -> Way:
        return lambda: call

    def partition_mean() -> Any:
        return np.partition(np.stack(updates), (f, n - f - 1), axis=0)[f : n - f].mean(axis=0)

    def nearest_mean() -> Any:
        stacked = np.stack(updates)
        return aggregate_n_closest_weights([np.median(stacked, axis=0)], [[row] for row in stacked], n - f)

    ten = plain(lambda: compute_geometric_median(updates, case.client_weights, maxiter=10))
    distances = plain(lambda: pdist(np.stack(updates), "sqeuclidean"))
    return {
        "mean": {"numpy mean": plain(lambda: np.mean(updates, axis=0)), "Flower FedAvg": flower(case, FedAvg())},
        "geometric-median": {"geom-median, 10 iterations": ten},
        "median": {
            "numpy median": plain(lambda: np.median(updates, axis=0)),
            "Flower FedMedian": flower(case, FedMedian()),
        },
        "trimmed-mean": {
            "numpy partition": plain(partition_mean),
            "scipy trim_mean": plain(lambda: trim_mean(updates, case.share, axis=0)),
            "Flower FedTrimmedAvg": flower(case, FedTrimmedAvg(beta=case.share)),
        },
        "mea-med": {"Flower's part of Bulyan": plain(nearest_mean)},
        "krum": {
            "scipy distances alone": distances,
            "Flower Krum": flower(case, Krum(num_malicious_nodes=f)),
        },
        "multi-krum": {
            "Flower MultiKrum": flower(case, MultiKrum(num_malicious_nodes=f, num_nodes_to_select=n - f)),
        },
        "bulyan": {"Flower Bulyan": flower(case, Bulyan(num_malicious_nodes=case.f_bulyan))},
    }
