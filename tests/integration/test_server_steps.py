"""Server optimizers in whole runs: what they remember survives a restart."""

from collections.abc import Mapping

import pytest

from strategies.aggregators import AGGREGATORS
from strategies.robust import RobustStrategy
from strategies.server_optimizers import SERVER_OPTIMIZERS
from tests.integration.conftest import Play

ARGS = {"fedadam": "eta = 0.02", "fedyogi": "eta = 0.02", "fedadagrad": "eta = 0.02"}


def stepping(step: str, seed: int, examples: Mapping[int, int]) -> RobustStrategy:
    """A robust strategy with a server optimizer."""
    server_optimizer = SERVER_OPTIMIZERS.build(step, ARGS.get(step, ""))
    return RobustStrategy(
        AGGREGATORS.build("geometric-median"), seed=seed, examples=examples, server_optimizer=server_optimizer
    )


@pytest.mark.parametrize("step", [entry.name for entry in SERVER_OPTIMIZERS.entries()])
def test_two_rounds_and_two_more_equal_four(play: Play, step: str):
    settings = {
        "strategy__name": "tests.integration.test_server_steps:stepping",
        "strategy__args": f'step = "{step}"',
        "loss__name": "ce",
    }
    whole = play(num_server_rounds=4, **settings)
    half = play(num_server_rounds=2, **settings)
    resumed = play(num_server_rounds=4, run__resume=str(half.path), **settings)
    assert resumed.metrics == whole.metrics
    assert resumed.weights() == whole.weights()
    assert whole.metrics[-1]["accuracy"] > whole.metrics[0]["accuracy"]
