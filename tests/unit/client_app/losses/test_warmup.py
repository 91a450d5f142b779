"""The warm-up of a loss: how much cross-entropy is added in a round, and to which losses."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from client_app.losses import CrossEntropy, build
from client_app.losses.warmup import FIRST_WEIGHT, warmed_up
from tasks.config import DEFAULTS, parse
from tasks.issues import RunContext
from tasks.settings import Settings

K = 5


def settings(warmup: float = 5.0, **more: str | float) -> Settings:
    keys = {name.replace("__", "."): value for name, value in more.items()}
    return parse({**DEFAULTS, "loss.warmup": warmup, "train.epochs": 1, **keys})


@pytest.mark.parametrize("name", ["fsanl", "gce", "ce", "nce+rce", "anl-ce*", "la-ce"])
@pytest.mark.parametrize(("server_round", "left"), [(1, 1.0), (3, 0.6), (5, 0.2), (6, 0.0), (10, 0.0)])
def test_the_added_cross_entropy_falls_linearly(name: str, server_round: int, left: float) -> None:
    logits, labels = torch.randn(8, K, dtype=torch.float64), torch.arange(8) % K
    objective = build(name, K, class_counts=[1, 2, 3, 4, 5])
    found = warmed_up(objective, settings(), server_round)
    assert found.regularizers == objective.regularizers
    added = FIRST_WEIGHT * left * cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(found.loss(logits, labels), objective.loss(logits, labels) + added, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("epochs", "fraction", "rounds"), [(1, 1.0, 8), (2, 1.0, 4), (3, 1.0, 3), (5, 0.1, 16), (1, 0.5, 16)]
)
def test_passes_are_those_that_a_client_is_expected_to_make(epochs: int, fraction: float, rounds: int) -> None:
    config = parse({**DEFAULTS, "loss.warmup": 8.0, "train.epochs": epochs, "federation.fraction-train": fraction})
    objective = build("gce", K)
    changed = [number for number in range(1, 20) if warmed_up(objective, config, number) is not objective]
    assert changed == list(range(1, rounds + 1))


def test_cross_entropy_is_computed_once() -> None:
    loss = warmed_up(build("fsanl", K), settings(), 1).loss
    assert [weight for weight, part in loss.parts if part == CrossEntropy()] == pytest.approx([FIRST_WEIGHT + 0.1])  # type: ignore[attr-defined]


def test_without_a_warm_up_the_objective_is_the_same_one() -> None:
    objective = build("fsanl", K)
    assert warmed_up(objective, settings(0.0), 1) is objective


def test_a_loss_without_elements_is_refused_before_the_start() -> None:
    context = RunContext(settings(loss__name="t-loss"), 2, labels_pixels=True, has_smooth_inputs=True)
    [issue] = build("t-loss", 2).issues(context)
    assert "loss.warmup adds cross-entropy to each element's loss, and t-loss has no such thing" in issue.text
    unwarmed = replace(context, settings=settings(0.0, loss__name="t-loss"))
    assert build("t-loss", 2).issues(unwarmed) == []
