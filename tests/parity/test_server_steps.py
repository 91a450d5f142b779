"""Server optimizers against Flower's stock strategies through several rounds, and FedExP against its formula."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvgM, FedYogi, Strategy

from strategies import server_optimizers
from strategies.aggregators import Mean, aggregate
from strategies.gram import Doubles, Vector
from tests.messages import answer, record

EXAMPLES = [3, 5, 2, 10]
PAIRS: list[tuple[server_optimizers.ServerOptimizer, Callable[[], Strategy]]] = [
    (server_optimizers.FedAvgM(0.7, 0.9), lambda: FedAvgM(server_learning_rate=0.7, server_momentum=0.9)),
    (server_optimizers.FedAvgM(0.5, 0.0), lambda: FedAvgM(server_learning_rate=0.5, server_momentum=0.0)),
    (server_optimizers.FedAdagrad(), FedAdagrad),
    (server_optimizers.FedAdagrad(eta=0.3, tau=0.02), lambda: FedAdagrad(eta=0.3, tau=0.02)),
    (server_optimizers.FedAdam(), FedAdam),
    (server_optimizers.FedAdam(0.02, 0.8, 0.95, 1e-5), lambda: FedAdam(eta=0.02, beta_1=0.8, beta_2=0.95, tau=1e-5)),
    (server_optimizers.FedYogi(), FedYogi),
    (server_optimizers.FedYogi(0.05, 0.5, 0.9, 1e-4), lambda: FedYogi(eta=0.05, beta_1=0.5, beta_2=0.9, tau=1e-4)),
]


def round_of_updates(server_round: int) -> Doubles:
    """Four clients that share a direction."""
    rng = np.random.default_rng(server_round)
    return np.asarray(0.01 * (rng.standard_normal((4, 300)) + np.linspace(-1, 1, 300)), np.float64)


def next_model(strategy: Strategy, server_round: int, model: Vector, updates: Doubles) -> Vector:
    """Return a Flower strategy's global model after a round; it is told the present one without a grid."""
    present = record({"w": model}) if isinstance(strategy, FedAvgM) else {"w": model}
    vars(strategy)["current_arrays"] = present
    pairs = zip(updates, EXAMPLES, strict=True)
    replies = [answer(i, {"w": model + update}, num_examples=n) for i, (update, n) in enumerate(pairs)]
    arrays, _ = strategy.aggregate_train(server_round, replies)
    assert arrays is not None
    return arrays["w"].numpy()


@pytest.mark.parametrize(("step", "stock"), PAIRS, ids=lambda given: getattr(type(given), "__name__", ""))
def test_rounds_match_flower(step: server_optimizers.ServerOptimizer, stock: Callable[[], Strategy]) -> None:
    start = np.random.default_rng(0).standard_normal(300)
    step, strategy, model, theirs = deepcopy(step), stock(), start, start
    for server_round in range(1, 9):
        updates = round_of_updates(server_round)
        combined = aggregate(Mean(), list(updates), EXAMPLES)
        model = model + step.apply(combined.value, np.sum(updates**2, axis=1), combined.weights, False)
        theirs = next_model(strategy, server_round, theirs, updates)
        np.testing.assert_allclose(model - start, theirs - start, rtol=1e-9, atol=1e-13)
    assert np.abs(model - start).max() > 0.01


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("epsilon", [1e-3, 10.0])
def test_fedexp_matches_its_formula(scale: float, epsilon: float) -> None:
    updates = scale * np.random.default_rng(3).standard_normal((9, 40))
    shares = np.random.default_rng(4).dirichlet(np.ones(9))
    mean, total = np.zeros(40), 0.0
    for share, update in zip(shares, updates, strict=True):
        mean += share * update
        total += share * sum(value * value for value in update)
    factor = max(1.0, total / (2 * (sum(value * value for value in mean) + epsilon)))
    taken = server_optimizers.FedExP(epsilon).apply(mean, np.sum(updates**2, axis=1), shares, False)
    np.testing.assert_allclose(taken, factor * mean, rtol=1e-12)


def test_fedexp_reaches_the_common_point_of_two_lines_in_fewer_rounds() -> None:
    """Two clients whose losses vanish on lines at 5 degrees: projections, as in the paper's argument."""
    directions = np.array([[1.0, 0.0], [np.cos(np.pi / 36), np.sin(np.pi / 36)]])

    def rounds_until_near(step: server_optimizers.ServerOptimizer | None) -> int:
        point = np.array([0.0, 1.0])
        for count in range(100_000):
            if np.linalg.norm(point) < 1e-3:
                return count
            updates = np.array([(d @ point) * d - point for d in directions])
            mean = updates.mean(axis=0)
            point = point + (
                mean if step is None else step.apply(mean, np.sum(updates**2, axis=1), np.full(2, 0.5), False)
            )
        raise AssertionError("did not come near")

    assert rounds_until_near(server_optimizers.FedExP(epsilon=1e-12)) < rounds_until_near(None) / 3
