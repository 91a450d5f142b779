from collections.abc import Iterable

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg

from strategies.aggregators import AGGREGATORS
from strategies.robust import GuardedStrategy, RobustStrategy
from strategies.updates import to_numpy
from tests.messages import MODEL, answer, failure, moved, record


class Clients:
    """As much of a grid as sampling needs."""

    def __init__(self, count: int) -> None:
        self.count = count

    def get_node_ids(self) -> Iterable[int]:
        return range(self.count)


def robust(rule: str = "geometric-median", **options: object) -> RobustStrategy:
    buffers = ("running_var", "count")
    return RobustStrategy(AGGREGATORS.build(rule), buffers=buffers, **options)  # type: ignore[arg-type]


def play(strategy: RobustStrategy | GuardedStrategy, replies: list[Message], clients: int = 5) -> ArrayRecord | None:
    list(strategy.configure_train(1, record(MODEL), ConfigRecord(), Clients(clients)))  # type: ignore[arg-type]
    return strategy.aggregate_train(1, replies)[0]


def test_the_mean_is_weighted_by_examples_or_uniform():
    replies = [answer(0, moved(1.0), num_examples=30), answer(1, moved(4.0), num_examples=10)]
    for weighting, step in (("examples", 1.75), ("uniform", 2.5)):
        strategy = robust("mean", weighting=weighting)
        result = play(strategy, replies)
        assert result is not None
        np.testing.assert_allclose(to_numpy(result)["weight"], MODEL["weight"] + step)
        np.testing.assert_allclose(to_numpy(result)["running_var"], MODEL["running_var"] + step)


def test_the_default_agrees_with_flowers_fedavg():
    replies = [answer(client, moved(float(client)), num_examples=10 + client) for client in range(4)]
    ours = play(robust("mean"), replies)
    stock = play(GuardedStrategy(FedAvg(fraction_evaluate=0.0)), [*replies])
    assert ours is not None
    assert stock is not None
    for name, array in to_numpy(ours).items():
        np.testing.assert_allclose(array, to_numpy(stock)[name], rtol=1e-6)
        assert array.dtype == MODEL[name].dtype == to_numpy(stock)[name].dtype


def test_one_liar_does_not_move_the_geometric_median_and_its_buffers_count_as_little():
    honest = [answer(client, moved(1.0 + 0.01 * client)) for client in range(4)]
    lie = moved(1e6, running_var=np.full(2, 1e6, np.float32))
    strategy = robust()
    result = play(strategy, [*honest, answer(4, lie)])
    assert result is not None
    np.testing.assert_allclose(to_numpy(result)["weight"], MODEL["weight"] + 1.0, atol=0.05)
    np.testing.assert_allclose(to_numpy(result)["running_var"], 2.0, atol=0.05)
    assert strategy.report.weights[4] < 1e-6
    assert strategy.report.distances[4] > 1e5
    assert sum(strategy.report.weights.values()) == pytest.approx(1.0)


def test_buffers_do_not_enter_the_distances():
    odd = moved(1.0, running_var=np.full(2, 1e6, np.float32))
    strategy = robust()
    play(strategy, [*(answer(client, moved(1.0)) for client in range(4)), answer(4, odd)])
    assert strategy.report.weights == pytest.approx(dict.fromkeys(range(5), 0.2))


def test_integers_are_averaged_and_rounded():
    replies = [answer(client, moved(0.0, count=np.array(count))) for client, count in enumerate([10, 11, 13])]
    result = play(robust("mean"), replies, clients=3)
    assert result is not None
    assert to_numpy(result)["count"].dtype == np.int64
    assert to_numpy(result)["count"] == 11  # 11.33


def test_the_order_of_arrival_does_not_matter():
    replies = [answer(client, moved(0.1 * client), num_examples=client + 1) for client in range(5)]
    forward, backward = play(robust(), replies), play(robust(), replies[::-1])
    assert forward is not None
    assert backward is not None
    assert all((array == to_numpy(backward)[name]).all() for name, array in to_numpy(forward).items())


def test_too_few_usable_replies_skip_the_round():
    for strategy in (robust(min_replies=2), GuardedStrategy(FedAvg(fraction_evaluate=0.0), min_replies=2)):
        assert play(strategy, [answer(0), failure(1)], clients=2) is None
        assert strategy.report.skipped == "1 usable replies, at least 2 are needed"
        assert strategy.report.quarantined == {1: "error 2: boom"}


def test_the_sample_follows_from_seed_and_round():
    def sample(seed: int, server_round: int) -> list[int]:
        strategy = robust(seed=seed, fraction_train=0.3)
        messages = strategy.configure_train(server_round, record(MODEL), ConfigRecord(), Clients(20))  # type: ignore[arg-type]
        return [message.metadata.dst_node_id for message in messages]

    assert sample(1, 1) == sample(1, 1)
    assert len(set(sample(1, 1))) == 6
    assert len({tuple(sample(seed, r)) for seed in (1, 2) for r in (1, 2, 3)}) == 6
    counts = np.bincount([client for r in range(600) for client in sample(1, r)], minlength=20)
    assert abs(counts - 180).max() < 5 * np.sqrt(600 * 0.3 * 0.7)


def test_federated_evaluation_is_the_median_of_finite_values():
    replies = [answer(0, loss=1.0), answer(1, loss=2.0), answer(2, loss=1e9), answer(3, loss=float("nan")), failure(4)]
    result = robust().aggregate_evaluate(1, replies)
    assert result is not None
    assert result["loss"] == 2.0


def test_a_claim_of_many_examples_does_not_buy_the_model():
    honest = [answer(client, moved(1.0), num_examples=100) for client in range(4)]
    strategy = robust()
    result = play(strategy, [*honest, answer(4, moved(-50.0), num_examples=10**9)])
    assert result is not None
    np.testing.assert_allclose(to_numpy(result)["weight"], MODEL["weight"] + 1.0, atol=1e-5)


def test_hostile_buffers_behind_honest_parameters_do_not_reach_the_model():
    honest = [answer(client, moved(1.0)) for client in range(4)]
    hostile = moved(1.0, running_var=np.full(2, -1e30, np.float32), count=np.array(-(10**9)))
    result = play(robust(), [*honest, answer(4, hostile)])
    assert result is not None
    np.testing.assert_allclose(to_numpy(result)["running_var"], 2.0)
    assert to_numpy(result)["count"] == 10


def test_a_strategy_that_returns_no_model_has_skipped_the_round():
    class Nothing(FedAvg):
        def aggregate_train(self, server_round, replies):
            return None, None

    strategy = GuardedStrategy(Nothing(fraction_evaluate=0.0))
    assert play(strategy, [answer(client) for client in range(5)]) is None
    assert strategy.report.skipped == "the strategy returned no model"


def test_a_stock_strategy_survives_odd_replies_to_an_evaluation():
    strategy = GuardedStrategy(FedAvg(fraction_evaluate=1.0))
    assert strategy.aggregate_evaluate(1, [failure(0), answer(1, num_examples=0)]) is None
    result = strategy.aggregate_evaluate(1, [answer(0), answer(1, num_examples=0), answer(2, other=3.0)])
    assert result is not None
    assert dict(result) == {"train-loss": 0.5}
