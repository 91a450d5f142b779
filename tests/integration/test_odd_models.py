"""Runs of models as people write them: tied weights, arrays without an axis or an element, batches of one example."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_model

from server_app.evaluation import CentralEvaluation
from tasks.base import Labels
from tasks.config import parse
from tasks.partition import Partitioner
from tests.integration.conftest import Play
from tests.odd_models import Tied

TIED = {"model.name": "tests.odd_models:Tied", "num-server-rounds": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy.aggregator": "krum", "strategy.aggregator-args": "f = 0"},
        {"strategy.server-optimizer": "fedadam"},
        {"strategy.name": "flower-fedadam"},
        {"method.name": "masked-optim", "strategy.name": "noise-partition"},
        {"method.name": "fedprox"},
        {"privacy.mode": "client-fixed", "privacy.noise-multiplier": 0.01, "strategy.weighting": "uniform",
         "strategy.aggregator": "mean"},
        {"attack.name": "sign-flip", "attack.share": 0.25},
    ],
)  # fmt: skip
def test_tied_weights_learn_with_everything(play: Play, changes: dict[str, Any]):
    run = play(**TIED, **changes)
    assert run.metrics[-1]["replies"] == 4
    arrays = load_file(run.path / "checkpoints" / "last.safetensors")
    start = CentralEvaluation(parse(TIED)).initial_arrays()
    model = {name: array for name, array in arrays.items() if not name.startswith("strategy:")}
    assert model.keys() == start.keys() == {"linear.weight", "linear.bias", "first.weight", "embed.weight"}
    assert (model["embed.weight"] != start["embed.weight"]).any()


def test_a_checkpoint_of_tied_weights_loads_into_the_model_and_resumes(play: Play):
    run = play(**TIED)
    model = Tied()
    load_model(model, run.path / "checkpoints" / "best.safetensors", strict=True)
    assert torch.equal(model.back.weight, model.embed.weight)
    again = play(**{**TIED, "num-server-rounds": 3}, run__resume=str(run.path))
    assert again.metrics[-1]["round"] == 3


@pytest.mark.parametrize("strategy", ["robust", "flower-fedavg", "flower-fedmedian", "flower-krum"])
@pytest.mark.parametrize("kind", ["ScalarAndEmpty", "TensorExtraState"])
def test_arrays_without_an_axis_or_an_element_travel(play: Play, kind: str, strategy: str):
    run = play(model__name=f"tests.odd_models:{kind}", strategy__name=strategy)
    assert [line["replies"] for line in run.metrics[1:]] == [4, 4, 4]
    assert run.metrics[-1]["accuracy"] > run.metrics[0]["accuracy"]


class OneAlone(Partitioner):
    """One client has one example, another one more than a batch of 64, the others the rest."""

    def owners(self, labels: Labels, num_clients: int, rng: np.random.Generator) -> Labels:
        return np.r_[0, np.ones(65, np.int64), 2 + np.arange(len(labels) - 66) % (num_clients - 2)]


def test_a_client_with_one_example_trains_a_model_with_batch_norm(play: Play):
    one_alone = {"partition.name": f"{__name__}:OneAlone", "partition.args": ""}
    run = play(model__name="tests.odd_models:Normed", num_server_rounds=1, **one_alone)
    assert run.metrics[-1]["replies"] == 4
