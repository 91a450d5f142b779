"""One set of checks run over every loss: shapes, dtypes, masks, gradients, bounds, symmetry."""

import pickle

import pytest
import torch
from torch import Tensor

from client_app.losses import IGNORE_INDEX, LOSSES, ElementwiseLoss
from tests.loss_members import ELEMENTWISE, MEMBERS, Member, batch, gradient, name_of

every = pytest.mark.parametrize("member", MEMBERS, ids=name_of)
elementwise = pytest.mark.parametrize("member", ELEMENTWISE, ids=name_of)
EXTREME = [[60.0, -60.0, 0.0, 59.0], [-60.0, 60.0, -60.0, -60.0], [60.0] * 4, [-60.0, -59.0, -60.0, 60.0]]


def test_table_covers_the_registry() -> None:
    assert sorted(member.name for member in MEMBERS) == [entry.name for entry in LOSSES.entries()]


@every
@pytest.mark.parametrize("shape", [(6,), (3, 5), (2, 3, 4)])
def test_one_value_per_label_in_every_rank(member: Member, shape: tuple[int, ...]) -> None:
    logits, labels = batch(shape, member.classes)
    values = member.build().loss(logits, labels)
    assert values.shape == shape
    assert values.dtype == torch.float64
    assert values.isfinite().all()


@elementwise
def test_dense_logits_equal_flattened_ones(member: Member) -> None:
    loss = member.build().loss
    logits, labels = batch((2, 3, 5), member.classes)
    flat = logits.movedim(1, -1).reshape(-1, member.classes)
    assert torch.allclose(loss(logits, labels).reshape(-1), loss(flat, labels.reshape(-1)), rtol=1e-12, atol=1e-13)


@elementwise
def test_gradient_is_the_derivative(member: Member) -> None:
    loss = member.build(detach_modulator=False).loss
    logits, labels = batch((4,), member.classes)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits.requires_grad_(), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("member", [member for member in MEMBERS if member.detaches], ids=name_of)
def test_detached_modulator_changes_gradient_but_not_value(member: Member) -> None:
    logits, labels = batch((4,), member.classes)
    detached, true = member.build(True).loss, member.build(False).loss
    assert torch.equal(detached(logits, labels), true(logits, labels))
    first = gradient(lambda z: detached(z, labels), logits)
    second = gradient(lambda z: true(z, labels), logits)
    assert (first - second).abs().max() > 1e-3


@every
def test_ignored_elements_have_no_loss_and_no_gradient(member: Member) -> None:
    loss = member.build().loss
    logits, labels = batch((2, 6), member.classes)
    ignored = torch.zeros(2, 6, dtype=torch.bool)
    ignored[0, ::2] = True
    masked = labels.masked_fill(ignored, IGNORE_INDEX)
    values = loss(logits, masked)
    slope = gradient(lambda z: loss(z, masked), logits)
    assert (values[ignored] == 0).all()
    assert (values[~ignored] != 0).all()
    assert (slope.movedim(1, -1)[ignored] == 0).all()
    assert (slope.movedim(1, -1)[~ignored] != 0).any()
    if member.elementwise:
        assert torch.equal(values[~ignored], loss(logits, labels)[~ignored])


@every
def test_all_ignored_is_zero(member: Member) -> None:
    logits, labels = batch((3, 4), member.classes)
    nothing = torch.full_like(labels, IGNORE_INDEX)
    loss = member.build().loss
    assert (loss(logits, nothing) == 0).all()
    assert (gradient(lambda z: loss(z, nothing), logits) == 0).all()


@every
def test_one_hot_label_distribution_equals_label(member: Member) -> None:
    loss = member.build().loss
    logits, labels = batch((3, 5), member.classes)
    one_hot = torch.nn.functional.one_hot(labels, member.classes).movedim(-1, 1).double()
    if not member.soft:
        with pytest.raises(ValueError, match=r"one label per element.*pass target\.argmax"):
            loss(logits, one_hot)
        return
    assert torch.allclose(loss(logits, one_hot), loss(logits, labels), rtol=1e-10, atol=1e-12)
    hard, soft = gradient(lambda z: loss(z, labels), logits), gradient(lambda z: loss(z, one_hot), logits)
    assert torch.allclose(hard, soft, rtol=1e-9, atol=1e-11)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_saturated_logits_stay_finite(member: Member, dtype: torch.dtype) -> None:
    # The T-Loss takes the first two classes; class 2 has no examples, so that its infinite loss under la-ce is right.
    possible = [label for label in range(member.classes) if not (member.name == "la-ce" and label == 2)]
    logits = torch.tensor(EXTREME, dtype=dtype)[:, : member.classes].repeat(len(possible), 1)
    labels = torch.tensor(possible).repeat_interleave(len(EXTREME))
    for detach in {True, not member.detaches}:
        loss = member.build(detach).loss
        values = loss(logits, labels)
        slope = gradient(lambda z: loss(z, labels), logits)  # noqa: B023
        assert values.dtype == torch.float32
        assert slope.dtype == dtype
        assert values.isfinite().all()
        assert slope.isfinite().all()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(member: Member, dtype: torch.dtype) -> None:
    logits, labels = batch((8,), member.classes)
    half = logits.to(dtype)
    loss = member.build().loss
    assert torch.equal(loss(half, labels), loss(half.float(), labels))


@every
def test_float32_agrees_with_float64(member: Member) -> None:
    logits, labels = batch((64,), member.classes, scale=4.0)
    loss = member.build().loss
    exact = loss(logits, labels)
    error = (loss(logits.float(), labels).double() - exact).abs() / exact.abs().clamp_min(1)
    assert error.max() < 1e-5


@elementwise
def test_values_are_in_their_range(member: Member) -> None:
    logits, labels = batch((400,), member.classes, scale=8.0)
    values = member.build().loss(logits, labels)
    assert values.min() >= member.low - 1e-12
    assert values.max() <= member.high + 1e-12


@elementwise
def test_sum_over_labels_is_constant_exactly_where_theory_says(member: Member) -> None:
    loss = member.build().loss
    assert isinstance(loss, ElementwiseLoss)
    log_probs = batch((50,), member.classes)[0].log_softmax(1)
    sums = loss.per_label(log_probs).sum(1)
    if member.symmetric is None:
        assert not (sums.isfinite().all() and sums.max() - sums.min() < 1e-2)
    else:
        assert torch.allclose(sums, torch.full_like(sums, member.symmetric), rtol=1e-6, atol=0)


@elementwise
def test_per_label_lists_the_loss_of_each_label(member: Member) -> None:
    loss = member.build().loss
    assert isinstance(loss, ElementwiseLoss)
    logits, _ = batch((3, 2), member.classes)
    listed = loss.per_label(logits.log_softmax(1))
    for label in range(member.classes):
        labels = torch.full((3, 2), label)
        assert torch.allclose(listed[:, label], loss(logits, labels), rtol=1e-10, atol=1e-12)


@every
def test_survives_pickling(member: Member) -> None:
    logits, labels = batch((3,), member.classes)
    objective = member.build()
    restored = pickle.loads(pickle.dumps(objective))
    assert torch.equal(restored.loss(logits, labels), objective.loss(logits, labels))


@every
def test_traces_into_one_graph(member: Member) -> None:
    loss = member.build().loss
    logits, labels = batch((3, 4), member.classes)

    def total(z: Tensor) -> Tensor:
        return loss(z, labels).sum()

    torch._dynamo.reset()
    compiled = torch.compile(total, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(logits), total(logits), rtol=1e-12)


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 1, dtype=torch.int64), r"int64 class indices \(3,\).*squeeze"),
        (torch.zeros(3, 4), torch.zeros(3, dtype=torch.int32), r"int32.*\.long\(\)"),
        (torch.zeros(3, 4), torch.zeros(3), r"label distributions of the logits' shape \(3, 4\)"),
        (
            torch.zeros(3, 4, 5),
            torch.zeros(3, 4, dtype=torch.int64),
            r"class indices \(3, 5\), got torch.int64 \(3, 4\)",
        ),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), r"logits must be floating, of shape \(N, K, \*D\)"),
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), r"K >= 2"),
        (torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), r"floating.*torch.int64"),
    ],
)
def test_shapes_that_do_not_fit_say_what_would(logits: Tensor, target: Tensor, message: str) -> None:
    for member in MEMBERS:
        with pytest.raises(ValueError, match=message):
            member.build().loss(logits, target)


@elementwise
def test_labels_outside_the_classes_are_not_accepted(member: Member) -> None:
    logits, _ = batch((2,), member.classes)
    for label in (member.classes, -1):
        with pytest.raises((RuntimeError, IndexError)):
            member.build().loss(logits, torch.tensor([0, label]))
