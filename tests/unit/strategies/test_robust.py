from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg, QFedAvg

from strategies.aggregators import AGGREGATORS, Aggregator, Reweighting
from strategies.aggregators.base import Combine
from strategies.base import FlowerStrategyAdapter
from strategies.gram import Doubles, UpdateMatrix, Vector
from strategies.robust import RobustStrategy
from strategies.server_optimizers import ServerOptimizer
from strategies.validation import to_numpy
from tests.messages import MODEL, answer, failure, moved, record


class Clients:
    """As much of a grid as sampling needs."""

    def __init__(self, count: int) -> None:
        self.count = count

    def get_node_ids(self) -> Iterable[int]:
        return range(self.count)


def robust(aggregator: str = "geometric-median", **options: object) -> RobustStrategy:
    buffers = ("running_var", "count")
    return RobustStrategy(AGGREGATORS.build(aggregator), buffers=buffers, **options)  # type: ignore[arg-type]


def play(
    strategy: RobustStrategy | FlowerStrategyAdapter, replies: list[Message], clients: int = 5
) -> ArrayRecord | None:
    list(strategy.configure_train(1, record(MODEL), ConfigRecord(), Clients(clients)))  # type: ignore[arg-type]
    return strategy.aggregate_train(1, replies)[0]


def test_the_mean_is_weighted_by_examples_or_uniform():
    for weighting, step in (("examples", 1.75), ("uniform", 2.5)):
        replies = [answer(0, moved(1.0), num_examples=30), answer(1, moved(4.0), num_examples=10)]
        strategy = robust("mean", weighting=weighting)
        result = play(strategy, replies)
        assert result is not None
        np.testing.assert_allclose(to_numpy(result)["weight"], MODEL["weight"] + step)
        np.testing.assert_allclose(to_numpy(result)["running_var"], MODEL["running_var"] + step)


def test_the_default_agrees_with_flowers_fedavg():
    def replies() -> list[Message]:
        return [answer(client, moved(float(client)), num_examples=10 + client) for client in range(4)]

    ours = play(robust("mean"), replies())
    stock = play(FlowerStrategyAdapter(FedAvg(fraction_evaluate=0.0)), replies())
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


def test_a_median_that_does_not_converge_is_in_the_report_of_the_round():
    rng = np.random.default_rng(0)
    strategy = robust()
    strategy.aggregator = AGGREGATORS.build("geometric-median", "max_iterations = 1")
    steps = rng.standard_normal((5, *MODEL["weight"].shape)).astype(np.float32)
    result = play(strategy, [answer(i, {**MODEL, "weight": MODEL["weight"] + step}) for i, step in enumerate(steps)])
    assert result is not None
    np.testing.assert_allclose(to_numpy(result)["weight"], MODEL["weight"] + np.median(steps, axis=0), atol=1e-6)
    (remark,) = strategy.report.remarks
    assert "the coordinate-wise median took its place" in remark
    assert strategy.report.weights == {}


def test_a_round_without_the_trusted_client_is_skipped():
    strategy = robust("monna")
    replies = [answer(client, moved(float(client))) for client in range(1, 5)]
    assert play(strategy, [failure(0), *replies]) is None
    assert strategy.report.skipped == "monna has no update of client 0, which it trusts"
    assert play(strategy, [answer(0, moved(0.5)), *replies]) is not None


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
    def replies() -> list[Message]:
        return [answer(client, moved(0.1 * client), num_examples=client + 1) for client in range(5)]

    forward, backward = play(robust(), replies()), play(robust(), replies()[::-1])
    assert forward is not None
    assert backward is not None
    assert all((array == to_numpy(backward)[name]).all() for name, array in to_numpy(forward).items())


def test_too_few_usable_replies_skip_the_round():
    for strategy in (robust(min_replies=2), FlowerStrategyAdapter(FedAvg(fraction_evaluate=0.0), min_replies=2)):
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
    hostile = moved(1.0, running_var=np.full(2, -1e12, np.float32), count=np.array(-(10**9)))
    result = play(robust(), [*honest, answer(4, hostile)])
    assert result is not None
    np.testing.assert_allclose(to_numpy(result)["running_var"], 2.0)
    assert to_numpy(result)["count"] == 10


def test_a_strategy_that_returns_no_model_has_skipped_the_round():
    class Nothing(FedAvg):
        def aggregate_train(self, server_round, replies):
            return None, None

    strategy = FlowerStrategyAdapter(Nothing(fraction_evaluate=0.0))
    assert play(strategy, [answer(client) for client in range(5)]) is None
    assert strategy.report.skipped == "the strategy returned no model"


def test_a_stock_model_that_is_not_finite_is_refused():
    class Overflowing(FedAvg):
        def aggregate_train(self, server_round, replies):
            return record(moved(np.inf)), None

    strategy = FlowerStrategyAdapter(Overflowing(fraction_evaluate=0.0))
    assert play(strategy, [answer(client) for client in range(5)]) is None
    assert strategy.report.skipped == "the strategy returned a model with values that are not finite"


def test_a_stock_strategy_that_scales_in_place_can_work_on_integers():
    strategy = FlowerStrategyAdapter(QFedAvg(client_learning_rate=1.0, q=0.0, train_loss_key="train-loss"))
    counts = [answer(client, moved(1.0, count=np.array(11 + client))) for client in range(5)]
    result = play(strategy, counts)
    assert result is not None
    assert to_numpy(result)["count"].dtype == np.int64
    assert to_numpy(result)["count"] == 13  # q = 0 is the plain mean


def test_a_round_with_too_few_updates_for_the_aggregator_is_skipped_with_its_reason():
    strategy = RobustStrategy(AGGREGATORS.build("krum", "f = 2"))
    assert play(strategy, [answer(client) for client in range(4)]) is None
    assert strategy.report.skipped == strategy.aggregator.problem(4) != ""
    assert play(strategy, [answer(client) for client in range(7)], clients=7) is not None
    assert not strategy.report.skipped


class Recording(Aggregator):
    """The first update, and a note of what else the aggregator was given."""

    def prepare(self, matrix: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        self.seen = matrix
        return lambda columns, block: block[0], None


def test_the_aggregator_gets_tensor_sizes_roles_and_a_seed_of_the_round():
    strategy = RobustStrategy(Recording(), seed=3)
    strategy.roles = {0: "clean", 2: "noisy"}
    seen = []
    for server_round in (1, 2, 2):
        strategy.configure_train(server_round, record(MODEL), ConfigRecord(), Clients(3))  # type: ignore[arg-type]
        strategy.aggregate_train(server_round, [answer(client) for client in range(3)])
        seen.append(strategy.aggregator.seen)  # type: ignore[attr-defined]
    assert seen[0].sizes == (4, 2)
    assert seen[0].roles == ("clean", "unknown", "noisy")
    assert seen[0].seed != seen[1].seed == seen[2].seed


@dataclass(eq=False)
class Doubling(ServerOptimizer):
    """Twice the update, and a note of what came with it."""

    seen: tuple[Any, ...] = ()

    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        self.seen = (squared_norms.tolist(), weights, robust)
        return 2 * update


@pytest.mark.parametrize(("aggregator", "is_robust"), [("mean", False), ("median", True)])
def test_a_server_optimizer_replaces_the_result_but_not_the_buffers(aggregator: str, is_robust: bool):
    strategy = robust(aggregator, server_optimizer=Doubling())
    result = play(strategy, [answer(0, moved(1.0)), answer(1, moved(3.0))])
    assert result is not None
    np.testing.assert_allclose(to_numpy(result)["weight"], MODEL["weight"] + 4.0)
    np.testing.assert_allclose(to_numpy(result)["running_var"], MODEL["running_var"] + 2.0)
    squared_norms, weights, hostile = strategy.server_optimizer.seen  # type: ignore[union-attr]
    assert squared_norms == [4.0, 36.0]
    assert (weights is None, hostile) == (is_robust, is_robust)


@dataclass(eq=False)
class Exploding(ServerOptimizer):
    """A step far beyond float32."""

    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        return np.full_like(update, np.inf)


def test_a_server_optimizer_beyond_all_numbers_skips_the_round():
    strategy = robust("mean", server_optimizer=Exploding())
    assert play(strategy, [answer(client) for client in range(5)]) is None
    assert strategy.report.skipped == "the combined model has values that are not finite"


class Half(Reweighting):
    """Half of the mean; the other half stays on the global model."""

    robust = False
    shrinks = True

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        return np.append(client_weights / 2, 0.5)


def test_what_stays_on_the_global_model_stays_there_in_the_buffers_too():
    result = play(RobustStrategy(Half(), buffers=("running_var", "count")), [answer(i, moved(4.0)) for i in range(3)])
    assert result is not None
    np.testing.assert_allclose(to_numpy(result)["weight"], MODEL["weight"] + 2.0)
    np.testing.assert_allclose(to_numpy(result)["running_var"], MODEL["running_var"] + 2.0)


def test_a_stock_strategy_survives_odd_replies_to_an_evaluation():
    strategy = FlowerStrategyAdapter(FedAvg(fraction_evaluate=1.0))
    assert strategy.aggregate_evaluate(1, [failure(0), answer(1, num_examples=0)]) is None
    result = strategy.aggregate_evaluate(1, [answer(0), answer(1, num_examples=0), answer(2, other=3.0)])
    assert result is not None
    assert dict(result) == {"train-loss": 0.5}
