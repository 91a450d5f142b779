"""The mean training loss of a round cannot be written by one client that claims to have a billion examples."""

import pytest
from flwr.app import ConfigRecord, MetricRecord

from strategies.aggregators import AGGREGATORS
from strategies.robust import RobustStrategy
from tests.messages import MODEL, answer, record
from tests.unit.strategies.test_robust import Clients


def mean_loss(rule: str, **options: str) -> float:
    """The mean loss of four honest clients with 10 examples and a loss of 0.5, and of a liar with a loss of 9."""
    strategy = RobustStrategy(AGGREGATORS.build(rule), buffers=("running_var", "count"), **options)  # type: ignore[arg-type]
    list(strategy.configure_train(1, record(MODEL), ConfigRecord(), Clients(5)))  # type: ignore[arg-type]
    replies = [answer(client) for client in range(4)] + [answer(4, num_examples=10**9, train_loss=9.0)]
    metrics = strategy.aggregate_train(1, replies)[1]
    assert isinstance(metrics, MetricRecord)
    return float(metrics["train-loss"])  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["geometric-median", "median", "trimmed-mean"])
def test_behind_a_robust_rule_it_weighs_twice_the_median(rule: str) -> None:
    assert mean_loss(rule) == pytest.approx((4 * 0.5 + 2 * 9.0) / 6)


def test_with_the_mean_it_outvotes_all_and_with_uniform_weights_it_is_one_of_five() -> None:
    assert mean_loss("mean") == pytest.approx(9.0, rel=1e-6)
    assert mean_loss("mean", weighting="uniform") == pytest.approx((4 * 0.5 + 9.0) / 5)
