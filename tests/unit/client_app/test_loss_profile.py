"""A client's loss profile, and the noise rate that it estimates of its own labels."""

import numpy as np
import pytest
import torch

from client_app.label_quality import class_losses
from client_app.loss_profile import class_shares, loss_profile, noise_rate
from tasks.base import ClientData
from tasks.images import Digits

CPU = torch.device("cpu")


def believed(truth: np.ndarray, sure: np.ndarray, classes: int) -> torch.Tensor:
    """Logits that are ``sure`` of the true class."""
    logits = torch.zeros(len(truth), classes)
    logits[torch.arange(len(truth)), torch.from_numpy(truth)] = torch.from_numpy(sure.astype(np.float32))
    return logits


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5])
def test_the_rate_of_wrong_labels_is_found_where_the_model_is_right_when_it_is_sure(rate: float):
    draw = np.random.default_rng(0)
    truth, sure = draw.integers(0, 10, 4000), draw.uniform(1, 9, 4000)
    seen = np.where((sure < 5) & (draw.random(4000) < 0.4), draw.integers(0, 10, 4000), truth)  # it errs when unsure
    labels = np.where(draw.random(4000) < rate, (truth + 1) % 10, truth)
    logits = believed(seen, sure, 10)
    assert noise_rate(logits, torch.from_numpy(labels)) == pytest.approx(rate, abs=0.025)
    contradicted = (logits.argmax(1).numpy() != labels).mean()
    assert contradicted > rate + 0.05  # what counting all would say


def test_it_is_the_formula_in_float64():
    draw = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(31, 4, generator=draw), torch.randint(0, 3, (31,), generator=draw)
    shares = np.bincount(labels.numpy(), minlength=4) / 31
    weighed = np.exp(logits.double().numpy()) * shares
    p = weighed / weighed.sum(1, keepdims=True)
    surest = np.argsort(-p.max(1))[: round(31 / 2)]
    assert noise_rate(logits, labels) == (p.argmax(1) != labels.numpy())[surest].mean()


def test_a_class_that_a_client_does_not_have_contradicts_none_of_its_labels():
    logits = torch.tensor([[0.0, 0.0, 9.0]]).repeat(6, 1)
    assert noise_rate(logits, torch.tensor([0, 0, 0, 0, 0, 1])) < 0.4  # not 1: nobody here has class 2
    assert noise_rate(logits[:1], torch.tensor([0])) == 0.0


def test_the_profile_has_a_noise_rate_if_it_is_wanted():
    task = Digits()
    examples = task.train_examples().take(np.arange(50))
    data = ClientData(0, examples.features, examples.labels, np.arange(50), 10)
    model = task.build_model("mlp", "")
    plain, more = (loss_profile(model, task, data, 16, CPU, wanted) for wanted in (None, {"want-noise-rate": True}))
    losses, counts = class_losses(model, task, data, 16, CPU)
    assert plain == {"class-losses": losses.tolist(), "class-counts": counts.tolist()}
    assert more.keys() - plain.keys() == {"noise-rate"}
    assert 0 <= more["noise-rate"] <= 1


def test_class_shares_are_those_of_the_examples_whatever_their_labels():
    """Examples are drawn from Gaussians, and logits are the log densities: the model is right for equal shares."""
    draw = np.random.default_rng(0)
    shares = np.array([0.7, 0.2, 0.1, 0.0])
    truth = draw.choice(4, 4000, p=shares)
    points = truth + draw.normal(0, 0.6, 4000)
    logits = torch.from_numpy(-((points[:, None] - np.arange(4)) ** 2) / (2 * 0.6**2))
    found = class_shares(logits).numpy()
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, shares, atol=0.03)
    naive = torch.softmax(logits, 1).mean(0).numpy()
    assert np.abs(naive - shares).max() > 0.1  # one step from equal shares


def test_losses_are_weighed_by_the_estimated_shares_if_wanted():
    task = Digits()
    examples = task.train_examples().take(np.arange(40))
    data = ClientData(0, examples.features, np.zeros(40, np.int64), np.arange(40), 10)
    model = task.build_model("mlp", "").eval()
    logits = model(task.prepare(data.features)).detach()
    log_p = torch.log_softmax(logits.double() + class_shares(logits).log(), 1)
    profile = loss_profile(model, task, data, 40, CPU, {"estimate-shares": True})
    assert profile["class-losses"][0] == pytest.approx(-log_p[:, 0].mean().item(), abs=1e-6)
    assert abs(profile["class-losses"][0] - loss_profile(model, task, data, 40, CPU)["class-losses"][0]) > 1e-4
