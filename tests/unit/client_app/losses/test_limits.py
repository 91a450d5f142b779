"""Where one loss becomes another: parameters at the ends of their ranges."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from client_app.losses import CrossEntropy, MeanAbsoluteError, Normalized, NormalizedNegative, WeightedSum, build
from client_app.losses.label_losses import complement
from tests.loss_members import K, batch, gradient


def loss(name: str, **args: Any) -> Any:
    return build(name, K, args).loss


def both(first: Any, second: Any, tolerance: float) -> None:
    """Assert that two losses have the same values and gradients on one batch."""
    logits, labels = batch((40,), K)
    assert torch.allclose(first(logits, labels), second(logits, labels), rtol=tolerance, atol=tolerance)
    slope, other = (gradient(lambda z: each(z, labels), logits) for each in (first, second))  # noqa: B023
    assert torch.allclose(slope, other, rtol=tolerance, atol=tolerance)


LIMITS: list[tuple[str, Mapping[str, Any], str, Mapping[str, Any], float]] = [
    ("focal", {"gamma": 0.0}, "ce", {}, 1e-12),
    ("nfl", {"gamma": 0.0}, "nce", {}, 1e-12),
    ("nnfl", {"gamma": 0.0}, "nnce", {}, 1e-12),
    ("gce", {"q": 1e-9}, "ce", {}, 1e-6),
    ("gce", {"q": 1.0}, "mae", {}, 1e-12),
    ("phce", {"tau": 1e9}, "ce", {}, 1e-12),
    ("phce", {"tau": 1.0}, "mae", {}, 1e-12),
    ("tce", {"t": 1}, "mae", {}, 1e-12),
    ("agce", {"q": 1.0}, "mae", {}, 1e-12),
    ("agce", {"a": 1e-12, "q": 0.7}, "gce", {"q": 0.7}, 1e-6),
    ("aul", {"q": 1.0}, "mae", {}, 1e-12),
    ("sce", {"alpha": 1.0, "beta": 0.0}, "ce", {}, 1e-12),
    ("sce", {"alpha": 0.0, "beta": 1.0}, "rce", {}, 1e-12),
    ("nce+rce", {"alpha": 0.0, "beta": 1.0}, "rce", {}, 1e-12),
    ("nce+agce", {"alpha": 1.0, "beta": 0.0}, "nce", {}, 1e-12),
    ("anl-ce", {"alpha": 1.0, "beta": 0.0}, "nce", {}, 1e-12),
    ("anl-ce", {"alpha": 0.0, "beta": 1.0}, "nnce", {}, 1e-12),
    ("anl-fl", {"gamma": 0.0}, "anl-ce", {}, 1e-12),
    ("fsanl", {"sce_weight": 0.0}, "anl-ce", {}, 1e-12),
    ("fsanl", {"nce_weight": 0.0, "nnce_weight": 0.0}, "sce", {}, 1e-12),
    ("nrce", {}, "nmae", {}, 1e-6),
]


@pytest.mark.parametrize(("name", "args", "limit", "limit_args", "tolerance"), LIMITS)
def test_limit_case(
    name: str, args: Mapping[str, Any], limit: str, limit_args: Mapping[str, Any], tolerance: float
) -> None:
    both(loss(name, **args), loss(limit, **limit_args), tolerance)


def test_taylor_error_shrinks_with_each_term() -> None:
    logits, labels = batch((40,), K)
    exact = loss("ce")(logits, labels)
    gaps = [(exact - loss("tce", t=t)(logits, labels)).sum() for t in (1, 2, 4, 8, 16)]
    assert all(0 < later < earlier for earlier, later in itertools.pairwise(gaps))
    likely, labels = batch((40,), K, scale=0.5)  # the gap is about (1-p)^t
    assert torch.allclose(loss("tce", t=400)(likely, labels), loss("ce")(likely, labels), rtol=1e-9)


def test_asymmetric_exponential_tends_to_mae() -> None:
    a = 1e6
    logits, labels = batch((40,), K)
    linear = a * (loss("ael", a=a)(logits, labels) - torch.exp(torch.tensor(-1 / a, dtype=torch.float64)))
    assert torch.allclose(linear, loss("mae")(logits, labels), rtol=1e-5, atol=1e-6)


def test_reverse_cross_entropy_is_a_multiple_of_mae() -> None:
    logits, labels = batch((40,), K)
    multiple = -torch.log(torch.tensor(1e-4, dtype=torch.float64))
    assert torch.allclose(loss("rce")(logits, labels), multiple * loss("mae")(logits, labels), rtol=1e-6)


def test_missing_probability_keeps_its_digits_near_certainty() -> None:
    log_p = torch.tensor([-1e-3, -1e-8, -1e-30, 0.0])  # float32: 1 - exp(-1e-8) would be 0
    assert torch.allclose(complement(log_p), torch.tensor([9.995002e-4, 1e-8, 1e-30, 0.0]), rtol=1e-6, atol=0)


def test_huberised_loss_is_linear_below_its_threshold_and_smooth_there() -> None:
    def at(p: Tensor) -> Tensor:
        logits = torch.stack([p.log(), (1 - p).log()], dim=1)
        return build("phce", 2, "tau = 4.0").loss(logits, torch.zeros(len(p), dtype=torch.int64))

    p = torch.tensor([0.05, 0.10, 0.15, 0.2], dtype=torch.float64)
    assert torch.allclose(at(p).diff(), torch.tensor(-4 * 0.05, dtype=torch.float64))
    edge = torch.tensor([0.25 - 1e-9, 0.25 + 1e-9], dtype=torch.float64)
    assert at(edge).diff().abs().item() < 1e-8
    slope = gradient(at, edge)
    assert torch.allclose(slope, torch.tensor(-4.0, dtype=torch.float64), rtol=1e-6)


def test_clipped_labels_give_no_gradient() -> None:
    # p of the label is about e^-30, far below 1e-7.
    logits, labels = torch.tensor([[30.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([1])
    for name in ("gce", "rce", "nnce", "nnfl"):
        slope = gradient(lambda z: build(name, 3).loss(z, labels), logits)  # noqa: B023
        assert slope.abs().max() < 1e-10
    assert gradient(lambda z: build("ce", 3).loss(z, labels), logits).abs().max() > 0.9


def test_uniform_predictions() -> None:
    logits, labels = torch.zeros(1, 8, dtype=torch.float64), torch.tensor([3])
    expected = {"nce": 1 / 8, "nfl": 1 / 8, "nnce": 7 / 8, "nnfl": 7 / 8, "nmae": 1 / 8, "mae": 7 / 8}
    for name, value in expected.items():
        assert build(name, 8).loss(logits, labels).item() == pytest.approx(value, abs=1e-12)


def test_shared_log_softmax_equals_separate_losses() -> None:
    logits, labels = batch((3, 5), K)
    objective = build("fsanl", K)
    parts = [(5.0, "nce"), (0.1, "ce"), (1.0, "rce"), (5.0, "nnce")]

    def separate(z: Tensor) -> Tensor:
        return torch.stack([weight * build(name, K).loss(z, labels) for weight, name in parts]).sum(0)

    assert torch.allclose(objective.loss(logits, labels), separate(logits), rtol=1e-12)
    fused = gradient(lambda z: objective.loss(z, labels), logits)
    assert torch.allclose(fused, gradient(separate, logits), rtol=1e-10, atol=1e-13)


def test_convex_mixture() -> None:
    logits, labels = batch((5,), K)
    mixture = WeightedSum(((0.7, CrossEntropy()), (0.3, MeanAbsoluteError())))
    expected = 0.7 * loss("ce")(logits, labels) + 0.3 * loss("mae")(logits, labels)
    assert torch.allclose(mixture(logits, labels), expected, rtol=1e-12)


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_weights_that_make_no_loss(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="at least 0 and not all 0"):
        WeightedSum(((weights[0], CrossEntropy()), (weights[1], MeanAbsoluteError())))


def test_any_loss_can_be_normalized_or_negated() -> None:
    logits, _ = batch((6,), K)
    log_probs = logits.log_softmax(1)
    for inner in (build("gce", K).loss, build("tce", K).loss):
        sums = Normalized(inner).per_label(log_probs).sum(1)  # type: ignore[arg-type]
        assert torch.allclose(sums, torch.ones(6, dtype=torch.float64))
        sums = NormalizedNegative(inner).per_label(log_probs).sum(1)  # type: ignore[arg-type]
        assert torch.allclose(sums, torch.full((6,), K - 1.0, dtype=torch.float64))


def test_mean_absolute_error_of_a_label_distribution() -> None:
    logits, _ = batch((5,), K)
    targets = batch((5,), K, seed=3)[0].softmax(1)
    expected = (logits.softmax(1) - targets).abs().sum(1)
    assert torch.allclose(loss("mae", scale=2.0)(logits, targets), expected, rtol=1e-12)
    assert torch.allclose(loss("mae")(logits, logits.softmax(1)), torch.zeros(5, dtype=torch.float64), atol=1e-15)


@pytest.mark.parametrize("name", ["ce", "focal", "nce", "nfl", "nnce", "nnfl", "anl-ce", "anl-fl"])
def test_loss_of_a_label_distribution_is_the_expectation(name: str) -> None:
    logits, _ = batch((5,), K)
    targets = batch((5,), K, seed=3)[0].softmax(1)
    member = loss(name)
    expected = (targets * member.per_label(logits.log_softmax(1))).sum(1)
    assert torch.allclose(member(logits, targets), expected, rtol=1e-10)
