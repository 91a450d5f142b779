"""Several networks in one strategy: each is combined as if it were alone, also by server optimizers with a memory."""

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord

from strategies.aggregators import build_aggregator
from strategies.robust import RobustStrategy
from strategies.server_optimizers import build_server_optimizer
from strategies.validation import RoundReport, Update
from tasks.extra_arrays import further_networks, model_part, of_network
from tasks.protocol import Arrays
from tests.messages import MODEL, answer, moved, record


class Grid:
    """Three clients."""

    def get_node_ids(self) -> list[int]:
        return [0, 1, 2]


def strategy(aggregator: str) -> RobustStrategy:
    optimizer = build_server_optimizer("fedadam", "")
    return RobustStrategy(build_aggregator(aggregator, "", ""), buffers=("running_var",), server_optimizer=optimizer)


def play(own: RobustStrategy, model: Arrays, replies: list[Arrays]) -> Arrays:
    list(own.configure_train(1, record(model), ConfigRecord(), Grid()))  # type: ignore[arg-type]
    updates: list[Update[Any]] = []
    for client, arrays in enumerate(replies):
        read = Update(client, arrays, 10, {"train-loss": 1.0}, answer(client))
        updates.append(Update(client, own.keep(read), 10, {"train-loss": 1.0}, answer(client)))
    found, _ = own.aggregate_updates(1, updates, RoundReport())
    assert found is not None
    return found


@pytest.mark.parametrize("aggregator", ["mean", "geometric-median", "median"])
def test_each_network_is_combined_as_if_it_were_alone(aggregator: str):
    first, second, both = strategy(aggregator), strategy(aggregator), strategy(aggregator)
    one, two = dict(MODEL), moved(5.0)
    for steps in ((0.1, 0.2, 0.9), (0.3, -0.2, 0.1), (1.0, 2.0, 4.0)):
        ones = [{name: one[name] + moved(step)[name] - MODEL[name] for name in MODEL} for step in steps]
        twos = [{name: two[name] + moved(-3 * step)[name] - MODEL[name] for name in MODEL} for step in steps[::-1]]
        ones, twos = ([{name: a.astype(MODEL[name].dtype) for name, a in r.items()} for r in s] for s in (ones, twos))
        replies = [own | of_network(2, other) for own, other in zip(ones, twos, strict=True)]
        together = play(both, one | of_network(2, two), replies)
        again = strategy(aggregator)
        again.load_state_dict(both.state_dict())
        both = again
        one, two = play(first, one, ones), play(second, two, twos)
        for name in MODEL:
            np.testing.assert_array_equal(model_part(together)[name], one[name])
            np.testing.assert_array_equal(further_networks(together)[2][name], two[name])
