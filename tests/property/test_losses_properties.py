"""What theory promises for every prediction: symmetry, ranges, equivariance, and how NNCE ranks classes and samples."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from client_app.losses import ElementwiseLoss, build
from tests.loss_members import ELEMENTWISE, K, Member, gradient, name_of

QUICK = settings(max_examples=25, deadline=None)
logits_of_k = st.lists(st.floats(-12, 12), min_size=K, max_size=K).map(lambda z: torch.tensor([z], dtype=torch.float64))
SYMMETRIC = [member for member in ELEMENTWISE if member.symmetric is not None]


@st.composite
def distributions(draw: st.DrawFn, smallest: int = 3, largest: int = 6) -> Tensor:
    """A probability vector with no entry below about 1e-3, so that nothing is clipped."""
    size = draw(st.integers(smallest, largest))
    masses = draw(st.lists(st.floats(0.01, 1), min_size=size, max_size=size))
    total = torch.tensor(masses, dtype=torch.float64)
    return total / total.sum()


def slope_in_probabilities(name: str, p: Tensor, label: int) -> Tensor:
    """Return d loss / d p_k, the probabilities taken as independent variables, (K,)."""
    loss = build(name, len(p)).loss
    assert isinstance(loss, ElementwiseLoss)
    return gradient(lambda q: loss.formula(q.log().unsqueeze(0), torch.tensor([label])), p)


@pytest.mark.parametrize("member", SYMMETRIC, ids=name_of)
@given(logits=logits_of_k)
@QUICK
def test_symmetric_losses_sum_to_a_constant(member: Member, logits: Tensor) -> None:
    loss = member.build().loss
    assert isinstance(loss, ElementwiseLoss)
    assert member.symmetric is not None
    total = loss.per_label(logits.log_softmax(1)).sum().item()
    assert total == pytest.approx(member.symmetric, rel=1e-5)


@pytest.mark.parametrize("member", ELEMENTWISE, ids=name_of)
@given(logits=logits_of_k, label=st.sampled_from([0, 1, 3]))
@QUICK
def test_values_stay_in_their_range(member: Member, logits: Tensor, label: int) -> None:
    value = member.build().loss(logits, torch.tensor([label])).item()
    assert member.low - 1e-9 <= value <= member.high + 1e-9


@pytest.mark.parametrize("member", [m for m in ELEMENTWISE if m.name != "la-ce"], ids=name_of)
@given(logits=logits_of_k, label=st.integers(0, K - 1), order=st.permutations(range(K)))
@QUICK
def test_renaming_the_classes_changes_nothing(member: Member, logits: Tensor, label: int, order: list[int]) -> None:
    loss = member.build().loss
    value, slope = loss(logits, torch.tensor([label])), gradient(lambda z: loss(z, torch.tensor([label])), logits)
    renamed = torch.tensor([order.index(label)])
    assert torch.allclose(loss(logits[:, order], renamed), value, rtol=1e-9, atol=1e-12)
    moved = gradient(lambda z: loss(z, renamed), logits[:, order])
    assert torch.allclose(moved, slope[:, order], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("member", ELEMENTWISE, ids=name_of)
@given(logits=logits_of_k, shift=st.floats(-30, 30))
@QUICK
def test_shifting_all_logits_changes_nothing(member: Member, logits: Tensor, shift: float) -> None:
    loss = member.build().loss
    labels = torch.tensor([1])
    assert torch.allclose(loss(logits + shift, labels), loss(logits, labels), rtol=1e-7, atol=1e-9)
    assert abs(gradient(lambda z: loss(z, labels), logits).sum().item()) < 1e-9


@pytest.mark.parametrize("member", ELEMENTWISE, ids=name_of)
@given(logits=logits_of_k, raised=st.floats(0.01, 5))
@QUICK
def test_a_likelier_label_is_never_worse(member: Member, logits: Tensor, raised: float) -> None:
    loss = member.build().loss
    labels = torch.tensor([1])
    better = logits.clone()
    better[0, 1] += raised
    assert loss(better, labels).item() <= loss(logits, labels).item() + 1e-9


@given(p=distributions(), data=st.data())
@QUICK
def test_nnce_gradient_formula(p: Tensor, data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(p) - 1))
    ceiling = -math.log(1e-7)
    total = (ceiling + p.log()).sum()
    expected = (ceiling + p[label].log()) / (total.square() * p)
    expected[label] = -(total - ceiling - p[label].log()) / (total.square() * p[label])
    assert torch.allclose(slope_in_probabilities("nnce", p, label), expected, rtol=1e-9)


@given(p=distributions(), data=st.data())
@QUICK
def test_nnce_ranks_classes(p: Tensor, data: st.DataObject) -> None:
    """ANL, theorem on classes: among the classes that are not the label, a smaller probability is pushed down harder.

    Asserted from d NNCE / d p_j = (A + log p_y) / (S^2 p_j) > 0 with S = sum_k (A + log p_k): the gradient is
    positive for every j != y and p_i < p_j makes it larger at i than at j, in the ratio p_j / p_i. For MAE, in
    contrast, it is 0 at every j != y: all of them are alike.
    """
    label = data.draw(st.integers(0, len(p) - 1))
    others = [k for k in range(len(p)) if k != label]
    slope = slope_in_probabilities("nnce", p, label)
    assert (slope[others] > 0).all()
    products = (slope * p)[others]
    assert torch.allclose(products, products[0].expand_as(products), rtol=1e-9)
    by_probability = sorted(others, key=lambda k: p[k].item())
    ranked = slope[by_probability]
    assert (ranked.diff() <= 1e-9 * ranked[0]).all()
    assert (slope_in_probabilities("mae", p, label)[others] == 0).all()


@given(p=distributions(), share=st.floats(0.05, 0.9), data=st.data())
@QUICK
def test_nnce_ranks_samples(p: Tensor, share: float, data: st.DataObject) -> None:
    """ANL, theorem on samples: of two samples, the one whose label is believed more pushes its other classes harder.

    Asserted: let two samples agree in all classes but the label y and one class r, from which the second sample's
    label has more mass. Then d NNCE / d p_j is larger for the second at every other j. Proof: the numerator A +
    log p_y grows; S shrinks if p_y >= p_r, and if p_y < p_r then S >= 2 (A + log p_y), so that the numerator grows
    faster than S^2. For MAE both samples have the gradient -1 at y and 0 elsewhere: equal attention.
    """
    label, donor = data.draw(st.permutations(range(len(p))))[:2]
    others = [k for k in range(len(p)) if k not in (label, donor)]
    moved = share * (p[donor].item() - 1e-3)
    assume(moved > 1e-4)
    surer = p.clone()
    surer[label] += moved
    surer[donor] -= moved
    first, second = (slope_in_probabilities("nnce", q, label)[others] for q in (p, surer))
    assert (second > first).all()
    assert torch.allclose(slope_in_probabilities("mae", p, label), slope_in_probabilities("mae", surer, label))
