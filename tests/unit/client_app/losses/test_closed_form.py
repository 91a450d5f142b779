from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from client_app.losses import CrossEntropy, Objective, build
from client_app.losses.closed_form import closed_mean, has_closed_form
from client_app.losses.objective import labelled, weighted_mean
from tests.loss_members import MEMBERS, K, Member

CLOSED = {"ce", "rce", "sce", "nce", "nnce", "nce+rce", "anl-ce", "anl-ce*", "fsanl"}


def batch(shape: tuple[int, ...], scale: float) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(len(shape))
    labels = torch.randint(K, (shape[0], *shape[2:]), generator=draws)
    return (torch.randn(shape, generator=draws) * scale).requires_grad_(), labels


def by_graph(objective: Objective, logits: Tensor, labels: Tensor) -> Tensor:
    return weighted_mean(objective.loss(logits, labels), labelled(labels))


def test_which_losses_have_one() -> None:
    assert {member.name for member in MEMBERS if has_closed_form(member.build().loss)} == CLOSED


@pytest.mark.parametrize("member", [m for m in MEMBERS if m.name in CLOSED], ids=lambda m: m.name)
@pytest.mark.parametrize("shape", [(16, K), (1, K), (3, K, 2, 3)])
def test_value_and_gradient_have_the_bits_of_autograd(member: Member, shape: tuple[int, ...]) -> None:
    objective = member.build()
    for scale in (1.0, 40.0):  # probabilities at the clipping bounds too
        logits, labels = batch(shape, scale)
        found, expected = objective.data_term(logits, labels), by_graph(objective, logits, labels)
        closed = closed_mean(logits, labels, objective.loss)
        assert closed is not None
        assert torch.equal(closed, expected)
        for factor in (1.0, 0.37):
            slopes = [torch.autograd.grad(factor * x, logits, retain_graph=True)[0] for x in (closed, expected)]
            assert torch.equal(*slopes)
        if not objective.regularizers or objective.regularizers[0][1].needs_model:
            assert torch.equal(found, expected)


def test_a_missing_label_or_one_that_traces_takes_the_graph() -> None:
    logits, labels = batch((6, K), 1.0)
    loss = build("fsanl", K).loss
    assert closed_mean(logits, labels.index_fill(0, torch.tensor([2]), -100), loss) is None
    assert closed_mean(logits.detach(), labels, loss) is None
    assert closed_mean(logits, torch.nn.functional.one_hot(labels, K).float(), loss) is None
    gradient = torch.func.grad(build("fsanl", K).data_term)(logits.detach(), labels)
    assert torch.allclose(gradient, torch.autograd.grad(build("fsanl", K).data_term(logits, labels), logits)[0])


def test_a_second_derivative() -> None:
    logits, labels = batch((5, K), 1.0)
    objective = build("anl-ce", K)
    slopes = []
    for value in (objective.data_term(logits, labels), by_graph(objective, logits, labels)):
        (first,) = torch.autograd.grad(value, logits, create_graph=True)
        slopes.append(torch.autograd.grad(first.square().sum(), logits)[0])
    assert torch.allclose(*slopes, atol=1e-7)


def test_a_subclass_with_another_formula_keeps_its_graph() -> None:
    @dataclass(frozen=True)
    class Doubled(CrossEntropy):
        def value(self, log_p: Tensor) -> Tensor:
            return -2 * log_p

    logits, labels = batch((5, K), 1.0)
    assert not has_closed_form(Doubled())
    assert Objective(Doubled()).data_term(logits, labels) == 2 * Objective(CrossEntropy()).data_term(logits, labels)
