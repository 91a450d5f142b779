"""Distance-aware aggregation with BatchNorm's statistics in its distances, as in FedNoRo's program."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from strategies.aggregators import AGGREGATORS, aggregate
from strategies.aggregators.base import Aggregator
from strategies.robust import KeptArrays, RobustStrategy
from strategies.validation import RoundReport, Update
from tests.messages import record

DRAWS = np.random.default_rng(0)
UPDATES = [DRAWS.normal(size=5).astype(np.float32) for _ in range(4)]
BUFFERS = [[DRAWS.normal(size=3), DRAWS.normal(size=(2, 2))] for _ in range(4)]
ROLES = ["clean", "noisy", "clean", "unknown"]


def rule(args: str) -> Aggregator:
    return AGGREGATORS.build("distance-aware", args)


@pytest.mark.parametrize("squared", [False, True])
def test_distances_are_the_sums_over_tensors_and_buffers(squared: bool) -> None:
    """FedNoRo: the sum of the tensors' distances; FedELC: the squared distance of everything."""
    tensors = [[update[:2], update[2:], *buffers] for update, buffers in zip(UPDATES, BUFFERS, strict=True)]

    def distance(a: int, b: int) -> float:
        norms = [float(np.linalg.norm(np.float64(x) - y)) for x, y in zip(tensors[a], tensors[b], strict=True)]
        return sum(norm**2 for norm in norms) if squared else sum(norms)

    nearest = np.array([0 if role == "clean" else min(distance(i, 0), distance(i, 2)) for i, role in enumerate(ROLES)])
    shares = np.array([1, 2, 3, 4]) * np.exp(-nearest / nearest.max())
    args = f"buffers = true, distance = '{'squared' if squared else 'tensors'}'"
    found = aggregate(rule(args), UPDATES, [1, 2, 3, 4], sizes=(2, 3), roles=ROLES, buffers=BUFFERS)
    np.testing.assert_allclose(found.weights, shares / shares.sum(), rtol=1e-6)  # type: ignore[arg-type]
    without = aggregate(rule(args), UPDATES, [1, 2, 3, 4], sizes=(2, 3), roles=ROLES)
    plain = aggregate(rule(args.replace("true", "false")), UPDATES, [1, 2, 3, 4], sizes=(2, 3), roles=ROLES)
    np.testing.assert_array_equal(without.weights, plain.weights)  # type: ignore[arg-type]
    assert abs(without.weights - found.weights).max() > 0.001  # type: ignore[operator]


def test_a_client_without_weight_does_not_count() -> None:
    args = "buffers = true"
    some = aggregate(rule(args), UPDATES, [1, 0, 3, 4], roles=ROLES, buffers=BUFFERS)
    kept = [0, 2, 3]
    fewer = aggregate(
        rule(args),
        [UPDATES[i] for i in kept],
        [1, 3, 4],
        roles=[ROLES[i] for i in kept],
        buffers=[BUFFERS[i] for i in kept],
    )
    np.testing.assert_allclose(some.weights[kept], fewer.weights)  # type: ignore[index, arg-type]


@pytest.mark.parametrize("wanted", [False, True])
def test_the_strategy_hands_over_float_buffers_where_they_are_measured(wanted: bool) -> None:
    """Parameters are equal, so only the running mean tells the two noisy clients apart; the counter must not."""
    model = {"w": np.zeros(2, np.float32), "mean": np.zeros(2, np.float32), "count": np.zeros((), np.int64)}
    strategy = RobustStrategy(rule(f"buffers = {str(wanted).lower()}"), buffers=["mean", "count"], weighting="uniform")
    strategy.roles = {0: "clean", 1: "noisy", 2: "noisy"}
    updates = []
    list(strategy.configure_train(1, record(model), ConfigRecord(), Nodes()))  # type: ignore[arg-type]
    for client, mean in enumerate((0.0, 1.0, 2.0)):
        sent = {"w": np.full(2, float(client > 0), np.float32), "mean": np.full(2, mean, np.float32)}
        sent["count"] = np.array(1000 * client)
        update = Update(client, sent, 10, {}, Message(RecordDict(), client, "train"))
        updates.append(replace(update, kept=strategy.keep(update)))
    assert isinstance(updates[0].kept, KeptArrays)
    report = RoundReport()
    strategy.aggregate_updates(1, updates, report)
    weights = [report.weights[client] for client in (0, 1, 2)]
    assert (weights[1] == pytest.approx(weights[2])) != wanted
    if wanted:
        distances = np.array([0, np.sqrt(2) * (1 + 1), np.sqrt(2) * (1 + 2)])
        shares = np.exp(-distances / distances.max())
        assert weights == pytest.approx((shares / shares.sum()).tolist())


class Nodes:
    """A grid with three nodes."""

    def get_node_ids(self) -> list[int]:
        return [0, 1, 2]
