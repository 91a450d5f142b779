"""The three-term objective and the label step, against formulas written again in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from client_app.methods.masked_optim import Form, LabelLearning, ThreeTerms, small_loss
from client_app.trainer import Batch

ALPHA, BETA = 0.5, 0.1
MODEL = nn.Identity()  # the loss looks at logits only


def example(size: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, label logits and given labels in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, classes, generator=generator, dtype=torch.float64)
    label_logits = 3 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits, label_logits, torch.randint(classes, (size,), generator=generator)


def softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def mask_of(logits: np.ndarray, labels: np.ndarray, keep: float) -> np.ndarray:
    losses = -np.log(softmax(logits)[np.arange(len(labels)), labels])
    mask = np.zeros(len(labels))
    mask[np.argsort(losses)[: int(keep * len(labels))]] = 1.0
    return mask


def gradients(
    form: Form, keep: float, size: int = 10, classes: int = 5, network_scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of each example's loss by its logits and its label logits."""
    logits, label_logits, labels = example(size, classes)
    logits.requires_grad_(), label_logits.requires_grad_()
    ThreeTerms(form, ALPHA, BETA, keep, network_scale=network_scale)(logits, label_logits, labels).sum().backward()
    assert logits.grad is not None
    assert label_logits.grad is not None
    return logits.grad.numpy(), label_logits.grad.numpy()


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_code_form_is_the_formula(classes: int):
    logits, label_logits, labels = example(10, classes)
    p, d = softmax(logits.numpy()), softmax(label_logits.numpy())
    entropy = -(p * np.log(p)).sum(1)
    own = -np.log(d[np.arange(10), labels])
    mask = mask_of(logits.numpy(), labels.numpy(), 0.8)
    cross = -(p * np.log(d)).sum(1)
    expected = (cross - (1 - BETA) * entropy) / classes + ALPHA * mask * own  # the entropy's sign is negative
    found = ThreeTerms("code", ALPHA, BETA, 0.8)(logits, label_logits, labels)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_paper_form_is_the_formula(classes: int):
    logits, label_logits, labels = example(10, classes)
    p, d = softmax(logits.numpy()), softmax(label_logits.numpy())
    terms = -(d * np.log(p)).sum(1) - ALPHA * np.log(d[np.arange(10), labels]) - BETA * (p * np.log(p)).sum(1)
    expected = mask_of(logits.numpy(), labels.numpy(), 0.8) * terms
    found = ThreeTerms("paper", ALPHA, BETA, 0.8)(logits, label_logits, labels)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_the_gradient_of_the_labels_in_the_code_form():
    logits, label_logits, labels = (tensor.numpy() for tensor in example(10, 5))
    p, d, given_labels = softmax(logits), softmax(label_logits), np.eye(5)[labels]
    mask = mask_of(logits, labels, 0.8)[:, None]
    expected = (d - p) / 5 + ALPHA * mask * (d - given_labels)
    np.testing.assert_allclose(gradients("code", 0.8)[1], expected, atol=1e-14)


def test_the_gradient_of_the_labels_in_the_paper_form():
    logits, label_logits, labels = (tensor.numpy() for tensor in example(10, 5))
    d, surprise, given_labels = softmax(label_logits), -np.log(softmax(logits)), np.eye(5)[labels]
    pull = d * (surprise - (d * surprise).sum(1, keepdims=True)) + ALPHA * (d - given_labels)
    expected = mask_of(logits, labels, 0.8)[:, None] * pull
    np.testing.assert_allclose(gradients("paper", 0.8)[1], expected, atol=1e-14)


def test_the_mask_reaches_the_network_in_the_paper_form_only():
    assert np.array_equal(gradients("code", 0.2)[0], gradients("code", 1.0)[0])
    masked, whole = gradients("paper", 0.2)[0], gradients("paper", 1.0)[0]
    assert (np.abs(masked).sum(1) > 0).sum() == 2
    assert (np.abs(whole).sum(1) > 0).all()


@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_networks_scale_multiplies_its_gradient_and_nothing_else(form: Form):
    scaled, usual = gradients(form, 0.8, network_scale=5.0), gradients(form, 0.8)
    np.testing.assert_allclose(scaled[0], 5 * usual[0], rtol=1e-12)
    np.testing.assert_array_equal(scaled[1], usual[1])
    logits, label_logits, labels = example(10, 5)
    plain, other = (ThreeTerms(form, ALPHA, BETA, 0.8, network_scale=scale) for scale in (1.0, 5.0))
    assert torch.equal(plain(logits.requires_grad_(), label_logits, labels), other(logits, label_logits, labels))
    logits.sum().backward()
    assert torch.equal(logits.grad, torch.ones_like(logits))  # no hook stays on what was passed in


@pytest.mark.parametrize(("size", "keep", "kept"), [(10, 0.8, 8), (100, 0.29, 29), (7, 0.5, 3), (1, 0.8, 0), (5, 1, 5)])
def test_the_mask_keeps_the_smallest_losses(size: int, keep: float, kept: int):
    losses = torch.arange(size, 0, -1).float()
    assert small_loss(losses, keep).tolist() == [0.0] * (size - kept) + [1.0] * kept
    assert small_loss(torch.ones(size), keep).sum() == kept


@pytest.mark.parametrize("form", ["code", "paper"])
def test_by_agreement_the_mask_keeps_what_the_model_would_answer(form: Form):
    logits, label_logits, labels = example(40, 3)
    p, d = softmax(logits.numpy()), softmax(label_logits.numpy())
    mask = (p.argmax(1) == labels.numpy()).astype(np.float64)
    own, entropy = -ALPHA * np.log(d[np.arange(40), labels]), -(p * np.log(p)).sum(1)
    if form == "code":
        expected = ((p * np.log(p / d)).sum(1) + BETA * entropy) / 3 + mask * own
    else:
        expected = mask * (-(d * np.log(p)).sum(1) + own + BETA * entropy)
    assert 0 < mask.sum() < 40
    found = ThreeTerms(form, ALPHA, BETA, 0.8, "agreement")(logits, label_logits, labels)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-15)


def participations(true_probability: float, keep: float, rounds: int) -> list[tuple[float, float]]:
    """The learned probabilities of the true and of the given class before each fusion, at a fixed prediction."""
    prediction = torch.full((1, 10), (1 - true_probability) / 9)
    prediction[0, 3] = true_probability
    batch = Batch(torch.tensor([0]), torch.zeros(1), torch.tensor([7]))
    label_logits = 10 * nn.functional.one_hot(batch.labels, 10).float()
    found = []
    for _ in range(rounds):
        batch_loss = LabelLearning(label_logits, ThreeTerms("code", ALPHA, BETA, keep), 15.625)
        for _ in range(5):
            batch_loss.loss(MODEL, batch, batch.features, prediction.log()).backward()  # type: ignore[no-untyped-call]
            batch_loss.end_epoch()
        learned = torch.softmax(batch_loss.label_logits, 1)
        label_logits = 10 * (learned + prediction) / 2
        found.append((learned[0, 3].item(), learned[0, 7].item()))
    return found


def test_a_masked_label_moves_to_the_prediction_and_a_kept_one_stays():
    masked = [true for true, _ in participations(0.8, 0.0, 2) + participations(0.6, 0.0, 3)]
    assert masked == pytest.approx([0.76, 0.975, 0.59, 0.71, 0.77], abs=0.006)
    assert participations(0.8, 1.0, 1)[0] == pytest.approx((0.11, 0.86), abs=0.005)
    assert max(true for true, _ in participations(0.6, 1.0, 20)) < 0.12


@given(st.integers(1, 12), st.integers(2, 6), st.integers(0, 99))
def test_the_label_step_does_not_depend_on_the_batch_size(batch_size: int, classes: int, seed: int):
    logits, label_logits, labels = example(12, classes, seed)
    batch_loss = LabelLearning(label_logits.clone(), ThreeTerms("code", ALPHA, BETA, 1.0), 2.0)
    for indices in torch.split(torch.arange(12), batch_size):
        batch = Batch(indices, indices, labels[indices])
        batch_loss.loss(MODEL, batch, indices, logits[indices]).backward()  # type: ignore[no-untyped-call]
    batch_loss.end_epoch()
    p, d, y = torch.softmax(logits, 1), torch.softmax(label_logits, 1), torch.eye(classes, dtype=torch.float64)[labels]
    torch.testing.assert_close(batch_loss.label_logits, label_logits - 2.0 * ((d - p) / classes + ALPHA * (d - y)))


def test_labels_move_at_the_end_of_an_epoch_and_those_not_seen_stay():
    logits, label_logits, labels = example(6, 4)
    batch_loss = LabelLearning(label_logits.clone(), ThreeTerms("code", ALPHA, BETA, 0.8), 2.0)
    seen = torch.tensor([0, 2])
    batch_loss.loss(MODEL, Batch(seen, seen, labels[seen]), seen, logits[seen]).backward()  # type: ignore[no-untyped-call]
    assert torch.equal(batch_loss.label_logits, label_logits)
    batch_loss.end_epoch()
    moved = (batch_loss.label_logits != label_logits).any(1)
    assert moved.tolist() == [True, False, True, False, False, False]
    after = batch_loss.label_logits.clone()
    batch_loss.end_epoch()
    assert torch.equal(batch_loss.label_logits, after)
