"""Other implementations of the aggregation rules, to measure beside ours: NumPy, SciPy, geom-median, Flower, ByzFL.

Flower's strategies take the replies of a round, whose arrays they unpack from bytes first; some of them empty the
replies, so that every call gets new ones. ByzFL takes one array (N, P).
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import Bulyan, FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum, Strategy
from flwr.serverapp.strategy.bulyan import aggregate_n_closest_weights
from geom_median.numpy import compute_geometric_median
from scipy.spatial.distance import pdist
from scipy.stats import trim_mean

from strategies.aggregators import SmallestMaximumEigenvalueAveraging
from strategies.gram import Doubles, Vector

MOST_SUBSETS = 300  # for which ByzFL is measured: it goes through all parameters of each

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
    def f_smea(self) -> int:
        """A fifth of the clients, or what SMEA looks at all subsets for."""
        return min(self.f, SmallestMaximumEigenvalueAveraging().hostile(len(self.updates)))

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


def byzfl_module(name: str) -> Any:
    """Return a module of ByzFL, such as ``aggregators``, without importing its training framework with it.

    That takes seconds, torchvision and matplotlib, so the package itself is put in place without its contents.
    """
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("byzfl is missing; it comes with the extra dev: pip install -e .[dev]")
        package = ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["byzfl"] = package
    return importlib.import_module(f"byzfl.{name}")


def byzfl(case: Case, rule: str, *args: Any) -> Way:
    """Return the way to a call of a rule of ByzFL on a new array, as some of them overwrite it."""

    def prepare() -> Call:
        stacked, aggregator = np.stack(case.updates), getattr(byzfl_module("aggregators"), rule)(*args)
        return lambda: aggregator(stacked)

    return prepare


def byzfl_peers(case: Case) -> dict[str, dict[str, Way]]:
    """Return ByzFL's rules by the name of ours; those that try all subsets where these are few."""
    n, f = len(case.updates), case.f
    same: dict[str, tuple[Any, ...]]
    same = {"geometric-median": ("GeometricMedian",), "median": ("Median",), "monna": ("MoNNA", f), "caf": ("CAF", f)}
    same |= {
        "krum": ("Krum", f),
        "multi-krum": ("MultiKrum", f),
        "trimmed-mean": ("TrMean", f),
        "mea-med": ("Meamed", f),
    }
    same |= {"mda": ("MDA", f)} if math.comb(n, f) <= MOST_SUBSETS else {}
    same |= {"smea": ("SMEA", case.f_smea)} if math.comb(n, case.f_smea) <= MOST_SUBSETS else {}
    return {ours: {f"ByzFL {theirs[0]}": byzfl(case, *theirs)} for ours, theirs in same.items()}


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
    found = {
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
    for rule, members in byzfl_peers(case).items():
        found[rule] = found.get(rule, {}) | members
    return found
