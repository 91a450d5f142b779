"""Cohorts in a run: messages of a round are trained together on their way through the real ClientApp."""

import logging

import numpy as np
import pytest
from safetensors.numpy import load

from client_app import handlers
from client_app.cohorts import answers, choice
from tests.integration.conftest import Play, Played

SMALL = {
    "num_server_rounds": 2,
    "loss__name": "ce",
    "method__name": "masked-optim",
    "strategy__name": "noise-partition",
}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_KNOWN", {})


def weights(run: Played) -> dict[str, np.ndarray]:
    return {name: array for name, array in load(run.weights()).items() if array.dtype == np.float32}


def test_a_run_in_cohorts_is_the_run_one_by_one(play: Play, monkeypatch: pytest.MonkeyPatch):
    strategy = {"strategy__args": "warmup_rounds = 1"}
    alone = play(**SMALL, **strategy)

    def refuse(*_: object) -> None:
        raise AssertionError("a client was trained alone")

    monkeypatch.setattr(handlers, "run_client", refuse)
    monkeypatch.setattr(choice, "run_client", refuse)
    side_by_side = play(**SMALL, **strategy, train__cohort="8")
    assert len(alone.metrics) == len(side_by_side.metrics) == 3
    for name, array in weights(alone).items():
        np.testing.assert_allclose(weights(side_by_side)[name], array, rtol=1e-3, atol=1e-4)


def test_what_fails_together_is_done_one_by_one(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING)
    alone = play(num_server_rounds=1)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(answers, "run_clients", fail)
    assert play(num_server_rounds=1, train__cohort="auto").weights() == alone.weights()
    assert "side by side one failed: out of memory" in caplog.text
