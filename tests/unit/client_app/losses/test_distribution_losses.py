"""The T-Loss: one value per image, ignored pixels, a learned parameter."""

import math

import pytest
import torch
from torch import nn

from client_app.losses import IGNORE_INDEX, Objective, TLoss, build
from tests.loss_members import batch, gradient

FORMS = pytest.mark.parametrize("form", ["official", "paper"])


@FORMS
def test_every_pixel_carries_its_image_and_the_mean_is_over_images(form: str) -> None:
    logits, masks = batch((3, 4, 5), 2)
    loss = TLoss(0.5, form)
    values = loss(logits, masks)
    assert torch.equal(values, values[:, :1, :1].expand_as(values))
    alone = [loss(logits[i : i + 1], masks[i : i + 1]).mean() for i in range(3)]
    assert Objective(loss).data_term(logits, masks).item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-12)


@FORMS
def test_ignored_pixels_make_a_smaller_image(form: str) -> None:
    logits, masks = batch((2, 4, 6), 2)
    loss = TLoss(0.5, form)
    cropped = loss(logits[:, :, :, :4], masks[:, :, :4])
    masks[:, :, 4:] = IGNORE_INDEX
    values = loss(logits, masks)
    assert torch.allclose(values[:, :, :4], cropped, rtol=1e-12)
    assert (values[:, :, 4:] == 0).all()


@FORMS
def test_gradient_is_the_derivative(form: str) -> None:
    logits, masks = batch((2, 3, 2), 2)
    log_nu = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, t: TLoss(t, form)(z, masks), (logits.requires_grad_(), log_nu))


def test_outlying_images_pull_less_than_under_a_squared_error() -> None:
    # d/d delta of (nu+D)/2 log(1 + delta^2/nu) falls off once delta^2 > nu; the squared error's slope keeps growing.
    error = torch.tensor([[0.5, 0.5], [0.99, 0.99]], dtype=torch.float64)
    logits = torch.stack([(1 - error).log(), error.log()], dim=1)
    wrong = torch.zeros(2, 2, dtype=torch.int64)
    slope = gradient(lambda z: TLoss(-6.0, "paper")(z, wrong)[:, 0], logits)[:, 1, 0]
    per_error = slope / (error * (1 - error))[:, 0]
    assert per_error[1] < per_error[0]


def test_with_many_degrees_of_freedom_it_is_the_squared_error() -> None:
    logits, masks = batch((2, 4, 5), 2)
    error = torch.softmax(logits, 1)[:, 1] - masks
    expected = (error.square().sum((1, 2)) + 20 * math.log(2 * math.pi)) / 2  # a normal density of unit variance
    assert torch.allclose(TLoss(math.log(1e7), "paper")(logits, masks)[:, 0, 0], expected, rtol=1e-5)


def test_degrees_of_freedom_can_be_learned() -> None:
    logits, masks = batch((2, 8, 8), 2)
    log_nu = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    loss = TLoss(log_nu)
    optimizer = torch.optim.Adam([log_nu], lr=1e-2)
    before = loss(logits, masks).mean()
    for _ in range(20):
        optimizer.zero_grad()
        loss(logits, masks).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert log_nu.item() != 1.0
    assert loss(logits, masks).mean() < before


def test_confident_correct_mask_is_better_than_wrong_one() -> None:
    _, masks = batch((1, 8, 8), 2)
    right = torch.nn.functional.one_hot(masks, 2).movedim(-1, 1) * 10.0
    assert TLoss()(right, masks).mean() < TLoss()(-right, masks).mean()


def test_large_images_stay_finite_in_float32() -> None:
    logits = torch.full((1, 2, 256, 256), 60.0)
    logits[:, 1] = -60.0
    for value in (0, 1):
        masks = torch.full((1, 256, 256), value)
        assert TLoss()(logits, masks).isfinite().all()
        assert gradient(lambda z: TLoss()(z, masks), logits).isfinite().all()  # noqa: B023


def test_needs_two_classes_and_a_known_form() -> None:
    with pytest.raises(ValueError, match="2 classes"):
        TLoss()(*batch((2, 3, 3), 4))
    with pytest.raises(ValueError, match="one of official, paper, got 'papers'"):
        TLoss(form="papers")


def test_what_is_learned_is_what_the_rate_says() -> None:
    learned, fixed = (build("t-loss", 2, {"nu_rate": rate, "log_nu": 0.5}).loss for rate in (0.01, 0.0))
    assert {name: value.item() for name, value in learned.parameters().items()} == {"log_nu": 0.5}
    assert learned.parameter_rate == 0.01
    assert fixed.parameters() == {}
