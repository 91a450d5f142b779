"""A run that is too short for a method's warm-up, ramp or history says so; one that is just long enough does not."""

from dataclasses import replace

import pytest

from client_app.methods import METHODS
from strategies.aggregators import build_aggregator
from strategies.noise_partition import NoisePartition
from tasks.issues import RunContext
from tasks.settings import MethodSettings, Settings, TrainSettings


def said(name: str, args: str, rounds: int, epochs: int = 1) -> list[str]:
    chosen = Settings(
        num_server_rounds=rounds, method=MethodSettings(name=name, args=args), train=TrainSettings(epochs=epochs)
    )
    context = RunContext(chosen, sampled=6)
    if name == "fednoro":
        context = replace(context, strategy=NoisePartition(build_aggregator("mean"), warmup_rounds=10))
    issues = METHODS.build(name, args).issues(context)
    assert {issue.level for issue in issues} <= {"warning"}
    return [issue.line for issue in issues]


@pytest.mark.parametrize(
    ("name", "args", "enough", "text"),
    [
        (
            "feddiv",
            "warmup_rounds = 9",
            10,
            "learns from the given labels in the first 9 rounds (warmup_rounds), and the run has 9: no label is "
            "filtered",
        ),
        (
            "dividemix",
            "warmup_rounds = 9, ramp_rounds = 0",
            10,
            "in the first 9 rounds (warmup_rounds), and the run has 9: no example is taken for unlabelled",
        ),
        (
            "dividemix",
            "warmup_rounds = 9, ramp_rounds = 10",
            14,
            "the weight of unlabelled examples grows for 10 rounds (ramp_rounds), and in round 13, the last, it "
            "is at 40%",
        ),
        (
            "co-teaching",
            "ramp_rounds = 20",
            11,
            "the share of examples that are left out grows for 20 rounds (ramp_rounds), and in round 10, the last, it "
            "is at 45% of it",
        ),
        (
            "co-teaching-plus",
            "ramp_rounds = 0, agreement_rounds = 7",
            8,
            "in the first 7 rounds (agreement_rounds), and the run has 7: it does what co-teaching does",
        ),
        (
            "rofl",
            "pseudo_after = 1, forget_rounds = 10",
            5,
            "large losses that are left out grows for 10 rounds (forget_rounds), and in round 4, the last, it is "
            "at 40%",
        ),
        (
            "fedlsr",
            "ramp_rounds = 20",
            10,
            "the weight of the agreement of both views grows for 20 rounds (ramp_rounds), and in round 9, the last, it "
            "is at 45%",
        ),
        (  # exp(-5 (1 - t)^2) reaches a half at t = 0.628
            "fednoro",
            "ramp_rounds = 39",
            36,
            "after detection, grows for 39 rounds (ramp_rounds), and in round 35, the last, it is at 48% of it",
        ),
        (
            "selfie",
            "warmup_rounds = 0, history = 15",
            15,
            "waits for 15 predictions of an example (history), and no client makes more than 14: no label is replaced",
        ),
    ],
)
def test_what_is_not_reached_is_said(name: str, args: str, enough: int, text: str) -> None:
    (line,) = said(name, args, enough - 1)
    assert text in line
    assert said(name, args, enough) == []


def test_epochs_count_where_predictions_do() -> None:
    assert said("selfie", "warmup_rounds = 0, history = 15", 3, epochs=5) == []
    assert len(said("selfie", "warmup_rounds = 0, history = 15", 2, epochs=5)) == 1


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("co-teaching", "forget_rate = 0.0"),
        ("fedlsr", "distil_weight = 0.0"),
        ("dividemix", "warmup_rounds = 0, unlabelled_weight = 0.0"),
        ("rofl", "pseudo_after = 0, forget_rate = 0.0"),
    ],
)
def test_a_weight_of_zero_needs_no_ramp(name: str, args: str) -> None:
    assert said(name, args, 2) == []


def test_where_nobody_is_ever_called_noisy_the_strategy_says_it_and_not_the_method() -> None:
    assert said("fednoro", "", 10) == []
