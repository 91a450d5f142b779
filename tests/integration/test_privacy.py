"""Privacy modes end to end: Flower's mods at the clients and wrappers at the server, in runs of the real apps."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from server_app.evaluation import CentralEvaluation
from server_app.validation.config import check
from tasks import protocol
from tasks.config import DEFAULTS
from tasks.protocol import ARRAYS
from tests.integration.conftest import QUICK, Play, Played
from tests.messages import record

MEAN = {"strategy__aggregator": "mean", "strategy__weighting": "uniform", "loss__name": "ce", "noise__name": "none"}
MODES = ("server-fixed", "server-adaptive", "client-fixed", "client-adaptive", "local")


def private(mode: str, **changes: Any) -> dict[str, Any]:
    """Settings of a mode, with so little noise that something is learned."""
    settings = {
        **MEAN,
        "privacy__mode": mode,
        "privacy__clipping_norm": 1.0,
        "privacy__noise_multiplier": 0.01,
        "privacy__epsilon": 1e4,
    }
    if mode == "local":
        settings = {key: value for key, value in settings.items() if key != "privacy__noise_multiplier"}
    return settings | changes


def model(run: Played) -> dict[str, np.ndarray]:
    return load_file(run.path / "checkpoints" / "last.safetensors")


def moved(run: Played) -> float:
    """The 2-norm of what the run added to the model that it started from."""
    start, end = CentralEvaluation(check({**DEFAULTS, **QUICK})).initial_arrays(), model(run)
    return float(np.sqrt(sum(np.sum((end[name] - start[name]).astype(float) ** 2) for name in start)))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_when_the_noise_is_small(play: Play, mode: str):
    run = play(**private(mode, privacy__clipping_norm=2.0))
    assert run.status["status"] == "completed"
    assert [line["quarantined"] for line in run.metrics] == [0, 0, 0, 0]
    assert run.metrics[-1]["accuracy"] > run.metrics[0]["accuracy"] + 0.15


@pytest.mark.parametrize("mode", MODES)
def test_privacy_noise_repeats_with_the_seed_and_a_resumed_run_equals_a_whole_one(play: Play, mode: str):
    whole, half = play(num_server_rounds=4, **private(mode)), play(num_server_rounds=2, **private(mode))
    resumed = play(num_server_rounds=4, run__resume=str(half.path), **private(mode))
    assert resumed.metrics == whole.metrics
    assert resumed.weights() == whole.weights()
    other = play(num_server_rounds=4, **private(mode, seed=2))
    assert other.weights() != whole.weights()


@pytest.mark.parametrize("mode", ["server-fixed", "client-fixed"])
def test_a_round_moves_the_model_by_no_more_than_the_clipping_norm(play: Play, mode: str):
    options = private(mode, privacy__noise_multiplier=0.0, privacy__clipping_norm=0.05, num_server_rounds=1)
    clipped = moved(play(**options))
    assert clipped <= 0.05
    assert moved(play(**{**options, "privacy__clipping_norm": 0.1})) == pytest.approx(2 * clipped, rel=1e-3)
    free = {key: value for key, value in options.items() if not key.startswith("privacy")}
    assert moved(play(**free)) > 4 * clipped


@pytest.mark.parametrize("mode", ["server-fixed", "client-fixed"])
def test_clipping_at_the_server_and_at_the_client_give_the_same_model(play: Play, mode: str):
    options = private(mode, privacy__clipping_norm=0.3, num_server_rounds=1)
    reference = model(play(**{**options, "privacy__mode": "server-fixed"}))
    for name, array in model(play(**options)).items():
        np.testing.assert_allclose(array, reference[name], atol=1e-6)


def test_the_clipping_norm_approaches_the_quantile_of_the_norms_from_both_sides(play: Play):
    """Updates have norms of about 1: a small clipping norm grows, a large one shrinks."""

    def norms(start: float) -> list[float]:
        options = private("server-adaptive", privacy__clipping_norm=start, privacy__noise_multiplier=0.001)
        run = play(num_server_rounds=4, privacy__count_stddev=0.001, **options)
        return [line["clipping_norm"] for line in run.metrics[1:]]

    small, large = norms(0.01), norms(1000.0)
    np.testing.assert_allclose(small, 0.01 * np.exp(0.2 * 0.5 * np.arange(4)), rtol=1e-3)
    np.testing.assert_allclose(large, 1000 * np.exp(-0.2 * 0.5 * np.arange(4)), rtol=1e-3)


@pytest.mark.parametrize(
    ("mode", "reason"), [("server-fixed", "exactly as it was sent"), ("client-fixed", "from a client that has to clip")]
)
def test_an_update_that_cannot_be_clipped_or_was_not_is_set_aside(play: Play, mode: str, reason: str):
    def cheat(client: int, message: Message, reply: Message) -> Message:
        if client == 2 and message.metadata.message_type == "train":
            sent = message.content.array_records["arrays"][ARRAYS].numpy()
            arrays = protocol.unpack(sent, str(reply.content.config_records["winnow"]["layout"]))
            if mode == "client-fixed":
                arrays = {name: array + np.float32(1) for name, array in arrays.items()}
            reply.content["arrays"] = record({ARRAYS: protocol.pack(arrays)[0]})
        return reply

    run = play(cheat, **private(mode))
    reasons = {line["client"]: line["quarantine"] for line in run.lines("clients.jsonl") if line["round"] == 3}
    assert reason in reasons.pop(2)
    assert set(reasons.values()) == {None}
    assert [line["replies"] for line in run.metrics[1:]] == [3, 3, 3]


def test_a_client_that_does_not_learn_says_why_it_cannot_be_private(play: Play):
    still = {"train__schedule": "step", "train__step_rounds": 1, "train__step_factor": 1e-30, "num_server_rounds": 2}
    run = play(**private("local", **still))
    (reason,) = {line["quarantine"] for line in run.lines("clients.jsonl") if line["round"] == 2}
    assert "exactly as it came" in reason


def test_arms_may_differ_in_privacy(play: Play):
    """The client follows the settings of the message, not of the process: plain, private, plain."""
    plain = play(**MEAN)
    play(**private("local", privacy__epsilon=1.0))
    assert play(**MEAN).weights() == plain.weights()


def test_what_was_spent_is_recorded_and_printed(play: Play, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("dp_accounting")
    run = play(**private("server-fixed", privacy__noise_multiplier=2.0))
    spent = [line["epsilon"] for line in run.metrics]
    assert spent[0] == 0
    assert np.all(np.diff(spent) > 0)
    assert f"Privacy spent: epsilon = {spent[-1]:.4g} at delta = 1e-05 after 3 releases" in capsys.readouterr().out
    report = (run.path / "report.html").read_text()
    assert f"Privacy spent, per client: epsilon {spent[-1]:.4g} at delta 1e-05" in report


def test_without_the_accountant_the_run_says_so(
    play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "dp_accounting", None)
    run = play(**private("local", num_server_rounds=1))
    assert "pip install 'flwr[dp]'" in capsys.readouterr().out
    assert "epsilon" not in run.metrics[-1]
