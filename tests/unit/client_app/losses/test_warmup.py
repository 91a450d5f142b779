"""The warm-up of a loss: how much cross-entropy is added in a round, and to which losses."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from client_app.losses import CrossEntropy, build
from client_app.losses.warmup import FIRST_WEIGHT, warmed_up, warmup_share
from tasks.config import DEFAULTS, parse
from tasks.issues import RunContext
from tasks.settings import Settings

K = 5


def settings(warmup: str = "0.5", **more: str) -> Settings:
    keys = {name.replace("__", "."): value for name, value in more.items()}
    return parse({**DEFAULTS, "num-server-rounds": 10, "loss.warmup": warmup, **keys})


@pytest.mark.parametrize("name", ["fsanl", "gce", "ce", "nce+rce", "anl-ce*", "la-ce"])
@pytest.mark.parametrize(("server_round", "left"), [(1, 1.0), (3, 0.6), (5, 0.2), (6, 0.0), (10, 0.0)])
def test_the_added_cross_entropy_falls_linearly(name: str, server_round: int, left: float) -> None:
    logits, labels = torch.randn(8, K, dtype=torch.float64), torch.arange(8) % K
    objective = build(name, K, class_counts=[1, 2, 3, 4, 5])
    found = warmed_up(objective, settings(), server_round)
    assert found.regularizers == objective.regularizers
    added = FIRST_WEIGHT * left * cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(found.loss(logits, labels), objective.loss(logits, labels) + added, rtol=1e-12, atol=0)


def test_a_warm_up_of_all_rounds_ends_after_the_last() -> None:
    weights = [warmed_up(build("gce", K), settings("1.0"), number).loss.parts[-1][0] for number in (1, 10)]  # type: ignore[attr-defined]
    assert weights == pytest.approx([FIRST_WEIGHT, FIRST_WEIGHT / 10])


def test_cross_entropy_is_computed_once() -> None:
    loss = warmed_up(build("fsanl", K), settings(), 1).loss
    assert [weight for weight, part in loss.parts if part == CrossEntropy()] == pytest.approx([FIRST_WEIGHT + 0.1])  # type: ignore[attr-defined]


def test_without_a_warm_up_the_objective_is_the_same_one() -> None:
    objective = build("fsanl", K)
    assert warmed_up(objective, settings("off"), 1) is objective


@pytest.mark.parametrize(
    ("keys", "share"),
    [
        ({}, 0.3),
        ({"task__encoder": "wordllama"}, 0.0),
        ({"model__init": "weights.safetensors"}, 0.0),
        ({"loss__preset": "cifar-100"}, 0.0),
        ({"loss__name": "gce"}, 0.0),
        ({"loss__name": "gce", "warmup": "0.25"}, 0.25),
        ({"task__encoder": "wordllama", "warmup": "1"}, 1.0),
        ({"warmup": "off"}, 0.0),
    ],
)
def test_auto_is_for_the_default_loss_in_a_model_that_knows_nothing(keys: dict[str, str], share: float) -> None:
    assert warmup_share(settings(**{"warmup": "auto", **keys})) == share


def test_a_loss_without_elements_is_refused_before_the_start() -> None:
    context = RunContext(settings(loss__name="t-loss"), 2, labels_pixels=True, has_smooth_inputs=True)
    [issue] = build("t-loss", 2).issues(context)
    assert "loss.warmup adds cross-entropy to each element's loss, and t-loss has no such thing" in issue.text
    unwarmed = replace(context, settings=settings("auto", loss__name="t-loss"))
    assert build("t-loss", 2).issues(unwarmed) == []
