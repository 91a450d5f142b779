"""FedELR, FedLSR, SELFIE, Joint Optim, RoFL and FedDecorr through whole runs: states last, and errors come first."""

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tasks.config import ConfigError
from tasks.protocol import OF_STRATEGY
from tests.integration.conftest import Play

ARGS = {
    "fedelr": "weight = 1.0",
    "fedlsr": "ramp_rounds = 2",
    "selfie": "warmup_rounds = 1, history = 2",
    "joint-optim": "warmup_rounds = 1",
    "rofl": "pseudo_after = 1",
}
STATES = {"fedelr": "targets", "selfie": "history-seen", "joint-optim": "soft_labels"}


def options(method: str) -> dict[str, Any]:
    chosen = {"method__name": method, "method__args": ARGS[method], "loss__name": "ce", "strategy__aggregator": "mean"}
    return {**chosen, "num_server_rounds": 3}


@pytest.mark.parametrize("method", ARGS)
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(method: str, play: Play) -> None:
    whole = play(**options(method))
    assert whole.status["status"] == "completed"
    assert all(np.isfinite(line["loss"]) for line in whole.metrics)
    part = play(**options(method) | {"num_server_rounds": 2})
    resumed = play(**options(method), run__resume=str(part.path))
    assert resumed.weights() == whole.weights()
    states = sorted((whole.path / "clients" / "0").glob("state-*.safetensors"))
    assert bool(states) == (method in STATES)
    if method in STATES:
        assert STATES[method] in load_file(states[-1])


def test_centroids_travel_and_are_in_the_checkpoint(play: Play) -> None:
    played = play(**options("rofl"))
    arrays = load_file(played.path / "checkpoints" / "last.safetensors")
    (centroids,) = (array for name, array in arrays.items() if name.removeprefix(OF_STRATEGY) == "extra/centroids")
    assert centroids.shape[0] == 10
    assert np.any(centroids != 0, axis=1).all()


def test_decorrelation_goes_with_any_method_and_changes_the_run(play: Play) -> None:
    plain, added = (play(**options("fedelr"), train__decorrelation=weight) for weight in (0.0, 0.1))
    assert plain.weights() != added.weights()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train__decorrelation": 0.1, "model__name": "linear"}, "train.decorrelation has no effect"),
        ({"method__name": "rofl", "model__name": "linear"}, "method rofl has no effect: what the last layer"),
        ({"method__name": "rofl", "privacy__mode": "local"}, "named arrays beside the model"),
        ({"method__name": "joint-optim", "loss__name": "gce", "num_server_rounds": 30}, "the loss gce takes one class"),
    ],
)
def test_what_cannot_be_is_said_before_the_start(changes: dict[str, Any], text: str, play: Play) -> None:
    with pytest.raises(ConfigError, match=text):
        play(**changes)
