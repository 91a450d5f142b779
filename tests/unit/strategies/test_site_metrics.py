"""Metrics of several sites as one: limit cases of the weighted median, and what a liar can do."""

import numpy as np
import pytest
from flwr.app import Message, RecordDict

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from strategies.site_metrics import combine_metrics, limited_counts, weighted_median
from strategies.validation import Update
from tasks.seeds import rng


def updates(examples: list[int], accuracy: list[float]) -> list[Update[None]]:
    message = Message(RecordDict(), dst_node_id=1, message_type="evaluate")
    said = zip(examples, accuracy, strict=True)
    return [Update(site, None, count, {"accuracy": share}, message) for site, (count, share) in enumerate(said)]


@pytest.mark.parametrize("seed", range(8))
def test_with_whole_numbers_it_is_the_median_of_the_repeated_values(seed: int) -> None:
    draws = rng(seed, "weighted median")
    values, weights = draws.random(2 + seed), draws.integers(1, 6, 2 + seed)
    assert weighted_median(list(values), list(weights)) == pytest.approx(np.median(np.repeat(values, weights)))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11])
def test_with_equal_weights_it_is_the_median_whatever_the_weight(count: int) -> None:
    values = rng(count, "median").random(count)
    assert weighted_median(list(values), [1 / 3] * count) == pytest.approx(np.median(values))


def test_a_mean_by_examples_is_the_accuracy_over_all_of_them() -> None:
    assert combine_metrics(updates([10, 30], [0.5, 0.9]), "mean") == {"accuracy": pytest.approx((5 + 27) / 40)}


@pytest.mark.parametrize("how", ["median", "weighted-median"])
def test_one_liar_who_claims_a_billion_examples_stays_among_the_honest(how: str) -> None:
    for lie in (-1e90, 1e90):
        found = combine_metrics(updates([20, 30, 40, 10**9], [0.7, 0.8, 0.9, lie]), how)  # type: ignore[arg-type]
        assert 0.7 <= found["accuracy"] <= 0.9
    assert limited_counts([20, 30, 40, 10**9]).tolist() == [20, 30, 40, 70]


def test_large_sites_count_more_only_where_that_is_asked_for() -> None:
    sites = updates([10, 10, 30], [0.2, 0.4, 0.9])
    assert combine_metrics(sites, "median")["accuracy"] == 0.4
    assert combine_metrics(sites, "weighted-median")["accuracy"] == pytest.approx(0.65)  # 20 of 40, half on either side
