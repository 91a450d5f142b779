"""Objectives: the mean, its weights, and the terms around it."""

import math

import pytest
import torch
from torch import Tensor, nn

from client_app.losses import (
    IGNORE_INDEX,
    L1,
    EntropyOfMean,
    Jacobian,
    L2ToGlobal,
    Objective,
    RegularizerInput,
    build,
    weighted_mean,
)
from tasks.issues import RunContext
from tasks.settings import LossSettings, Settings
from tests.loss_members import K, batch


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, K, dtype=torch.float64)


def test_sum_of_its_terms() -> None:
    model, (inputs, labels) = linear(), batch((8,), 3)
    global_parameters = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    loss = build("nce+rce", K).loss
    terms = ((0.1, L1()), (0.3, EntropyOfMean()), (0.2, L2ToGlobal()), (0.4, Jacobian()))
    objective = Objective(loss, terms)
    inputs.requires_grad_()
    logits = model(inputs)
    whole = RegularizerInput(logits=logits, inputs=inputs, model=model, global_parameters=global_parameters)
    of_data = loss(logits, labels).mean() + 0.3 * EntropyOfMean()(whole) + 0.4 * Jacobian()(whole)
    expected = of_data + 0.1 * L1()(whole) + 0.2 * L2ToGlobal()(whole)
    found = objective(logits, labels, model, global_parameters, inputs=inputs)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert objective.data_term(logits, labels, inputs=inputs).item() == pytest.approx(of_data.item(), rel=1e-12)
    assert objective.needs_inputs
    assert not build("fsanl", K).needs_inputs


def test_trains_a_model_with_every_term() -> None:
    model, (inputs, labels) = linear(), batch((8,), 3)
    global_parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
    objective = build("fsanl", K).with_regularizer(0.1, L2ToGlobal())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = objective(model(inputs), labels, model, global_parameters)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]


def test_weights_make_a_weighted_mean() -> None:
    logits, labels = batch((2, 3), K)
    weights = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.0, 1.0]], dtype=torch.float64)
    labels[0, 1] = IGNORE_INDEX
    objective = build("gce", K)
    losses = objective.loss(logits, labels)
    kept = weights * (labels != IGNORE_INDEX)
    expected = (losses * kept).sum() / kept.sum()
    assert objective.data_term(logits, labels, weights).item() == pytest.approx(expected.item(), rel=1e-12)


def test_zero_weights_choose_examples() -> None:
    logits, labels = batch((6,), K)
    keep = torch.tensor([1.0, 0, 1, 1, 0, 0], dtype=torch.float64)
    objective = build("anl-ce", K)
    chosen = keep.bool()
    expected = objective.data_term(logits[chosen], labels[chosen]).item()
    assert objective.data_term(logits, labels, keep).item() == pytest.approx(expected, rel=1e-12)


def test_padding_with_the_ignore_index_changes_nothing() -> None:
    logits, labels = batch((5,), K)
    padded_logits = torch.cat([logits, torch.randn(3, K, dtype=torch.float64)])
    padded_labels = torch.cat([labels, torch.full((3,), IGNORE_INDEX)])
    for name in ("anl-ce*", "nce+rce", "focal"):
        objective = build(name, K)
        expected = objective.data_term(logits, labels).item()
        assert objective.data_term(padded_logits, padded_labels).item() == pytest.approx(expected, rel=1e-12)


def test_nothing_to_learn_from_is_zero_not_nan() -> None:
    logits, labels = batch((5,), K)
    logits.requires_grad_()
    empty = build("ce", K).data_term(logits, torch.full_like(labels, IGNORE_INDEX))
    weightless = build("ce", K).data_term(logits, labels, torch.zeros(5))
    for value in (empty, weightless):
        assert value.item() == 0
        (slope,) = torch.autograd.grad(value, logits)
        assert (slope == 0).all()


def test_label_distributions_have_a_mean_too() -> None:
    logits, _ = batch((4, 3), K)
    targets = batch((4, 3), K, seed=1)[0].softmax(1)
    objective = build("ce", K)
    expected = objective.loss(logits, targets).mean().item()
    assert objective.data_term(logits, targets).item() == pytest.approx(expected, rel=1e-12)


def test_regularizers_ignore_the_weights_of_labels() -> None:
    logits, labels = batch((6,), K)
    plain, balanced = build("anl-ce", K), build("anl-ce*", K)
    weights = torch.tensor([1.0, 0, 0, 1, 0, 1], dtype=torch.float64)
    added = balanced.data_term(logits, labels, weights) - plain.data_term(logits, labels, weights)
    assert added.item() == pytest.approx(2 * EntropyOfMean()(RegularizerInput(logits=logits)).item(), rel=1e-9)


def test_half_precision_objective_is_float32() -> None:
    model = linear().to(torch.bfloat16)
    inputs, labels = batch((8,), 3)
    value = build("anl-ce*", K)(model(inputs.bfloat16()), labels, model, {})
    assert value.dtype == torch.float32
    assert value.isfinite()


def test_ten_clients_side_by_side() -> None:
    logits, labels = batch((10, 6), K)
    stacked = logits.movedim(1, -1)  # (clients, N, K)
    objective = build("anl-ce*", K)
    together = torch.vmap(objective.data_term)(stacked, labels)
    alone = torch.stack([objective.data_term(z, y) for z, y in zip(stacked, labels, strict=True)])
    assert torch.allclose(together, alone, rtol=1e-12)


def test_adding_a_regularizer() -> None:
    objective = build("anl-ce", K)
    extended = objective.with_regularizer(0.5, L2ToGlobal())
    assert extended.regularizers == ((5e-5, L1()), (0.5, L2ToGlobal()))
    assert extended.loss == objective.loss
    assert objective.with_regularizer(0.0, L2ToGlobal()) == objective
    for coefficient in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="coefficient of L2ToGlobal must be at least 0"):
            objective.with_regularizer(coefficient, L2ToGlobal())


def test_missing_inputs_are_asked_for() -> None:
    logits, labels = batch((4,), K)
    with pytest.raises(ValueError, match=r"regularizer of the objective needs the inputs .*inputs="):
        build("anl-ce", K, 'regularizer = "jacobian"').data_term(logits, labels)


@pytest.mark.parametrize("weights", [torch.ones(4, 1), torch.ones(5)])
def test_weights_of_another_shape(weights: Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape of the losses \(4,\)"):
        weighted_mean(torch.ones(4), None, weights)


@pytest.mark.parametrize(
    ("name", "smooth", "pixels", "text"),
    [
        ("ce", False, False, ""),
        ("anl-ce", True, False, ""),
        ("anl-ce", False, False, "differentiates by inputs"),
        ("t-loss", True, True, ""),
        ("t-loss", True, False, "needs a label per pixel"),
    ],
)
def test_needs_that_a_run_does_not_meet_are_said(name: str, smooth: bool, pixels: bool, text: str) -> None:
    args = 'regularizer = "jacobian"' if name == "anl-ce" else ""
    context = RunContext(Settings(loss=LossSettings(name)), 6, labels_pixels=pixels, has_smooth_inputs=smooth)
    found = build(name, 2, args).issues(context)
    assert [text in issue.text and issue.level == "error" for issue in found] == [True] * bool(text)


@pytest.mark.parametrize("coefficient", [-1e-9, float("inf"), float("nan")])
def test_a_coefficient_is_finite_and_not_negative(coefficient: float) -> None:
    with pytest.raises(ValueError, match="coefficient of L1 must be at least 0"):
        build("ce", 2).with_regularizer(coefficient, L1())
