"""Losses against scipy, scikit-learn and torch."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss
from torch import nn
from torch.nn import functional

from client_app.losses import EntropyOfMean, Jacobian, RegularizerInput, TLoss, build
from tests.loss_members import COUNTS, batch


def test_cross_entropy_is_log_loss_and_torch() -> None:
    logits, labels = batch((40,), 4)
    mean = build("ce", 4).data_term(logits, labels).item()
    assert mean == pytest.approx(log_loss(labels, softmax(logits.numpy(), axis=1), labels=range(4)), rel=1e-12)
    assert mean == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-12)


def test_cross_entropy_of_label_distributions_is_torch() -> None:
    logits, _ = batch((6, 5), 4)
    targets = batch((6, 5), 4, seed=1)[0].softmax(1)
    expected = functional.cross_entropy(logits, targets, reduction="none")
    assert torch.allclose(build("ce", 4).loss(logits, targets), expected, rtol=1e-12)


def test_dense_mean_with_ignored_pixels_is_torch() -> None:
    logits, labels = batch((2, 6, 7), 4)
    labels[0, :3] = -100
    expected = functional.cross_entropy(logits, labels)
    assert build("ce", 4).data_term(logits, labels).item() == pytest.approx(expected.item(), rel=1e-12)


def test_focal_is_modulated_log_softmax() -> None:
    logits, labels = batch((30,), 4)
    log_p = np.take_along_axis(log_softmax(logits.numpy(), axis=1), labels.numpy()[:, None], axis=1)[:, 0]
    expected = -((1 - np.exp(log_p)) ** 2) * log_p
    assert np.allclose(build("focal", 4, "gamma = 2.0").loss(logits, labels).numpy(), expected, rtol=1e-10)


def test_logit_adjustment_is_cross_entropy_of_shifted_logits() -> None:
    logits, labels = batch((5, 3), 4)
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    shift = 0.5 * (counts / counts.sum()).log()
    expected = functional.cross_entropy(logits + shift.reshape(4, 1), labels, reduction="none")
    found = build("la-ce", 4, "tau = 0.5", class_counts=COUNTS).loss(logits, labels)
    assert torch.allclose(found, expected, rtol=1e-12)


def test_entropy_term_is_the_divergence_from_uniform() -> None:
    logits, _ = batch((9, 3), 4)
    mean = logits.softmax(1).mean(dim=(0, 2)).numpy()
    expected = stats.entropy(mean, np.full(4, 0.25))
    assert EntropyOfMean()(RegularizerInput(logits=logits)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("log_nu", [-1.0, 0.0, 1.0, 3.0])
def test_t_loss_is_a_multivariate_student_t(log_nu: float) -> None:
    logits, labels = batch((3, 4, 2), 2)
    error = (logits.softmax(1)[:, 1] - labels).reshape(3, 8).numpy()
    student = stats.multivariate_t(loc=np.zeros(8), shape=np.eye(8), df=np.exp(log_nu))
    found = TLoss(log_nu, "paper")(logits, labels)[:, 0, 0].numpy()
    assert np.allclose(found, -student.logpdf(error), rtol=1e-12)


def test_official_t_loss_is_a_student_t_of_precision_e() -> None:
    logits, labels = batch((3, 4, 2), 2)
    error = (logits.softmax(1)[:, 1] - labels).reshape(3, 8).numpy()
    student = stats.multivariate_t(loc=np.zeros(8), shape=np.eye(8) / np.e, df=np.e)
    found = TLoss(1.0, "official")(logits, labels)[:, 0, 0].numpy()
    assert np.allclose(found, -student.logpdf(error), rtol=1e-6)


def test_jacobian_term_is_the_norm_of_functional_jacobians() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)).double()
    inputs = torch.randn(5, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    value = Jacobian()(RegularizerInput(logits=model(inputs), inputs=inputs))
    each = torch.func.vmap(torch.func.jacrev(lambda x: model(x.unsqueeze(0)).squeeze(0)))(inputs.detach())
    assert value.item() == pytest.approx(each.square().sum().item() / 10, rel=1e-12)
