"""Decorrelation: FedDecorr's term against NumPy, its gradient, limit cases, and that any method gets it."""

import numpy as np
import pytest
import torch

from client_app.decorrelation import feature_correlation
from client_app.methods import METHODS
from server_app.validation.model import feature_issues
from tasks.images import Digits
from tests.unit.client_app.methods.stepping import data, linear, normed, play, vector


@pytest.mark.parametrize("shape", [(12, 5), (4, 30), (2, 3)])
def test_it_is_the_mean_squared_off_diagonal_divided_by_the_count(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    scores = (features - features.mean(0)) / np.sqrt(features.var(0, ddof=1) + 1e-8)
    product = scores.T @ scores
    off = product[~np.eye(shape[1], dtype=bool)]
    found = feature_correlation(torch.from_numpy(features)).item()
    assert found == pytest.approx((off**2).mean() / shape[0], rel=1e-10)
    correlations = np.corrcoef(features.T)[~np.eye(shape[1], dtype=bool)]
    assert found == pytest.approx((correlations**2).mean() * (shape[0] - 1) ** 2 / shape[0], rel=1e-4)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_its_gradient_is_right(shape: tuple[int, int]) -> None:
    features = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(feature_correlation, features)


def test_limit_cases() -> None:
    one = torch.randn(1, 4, requires_grad=True)
    feature_correlation(one).backward()  # a last batch of one example must not stop training
    assert torch.equal(one.grad, torch.zeros(1, 4))  # type: ignore[arg-type]
    assert feature_correlation(torch.randn(5, 1)).item() == 0
    assert feature_correlation(torch.ones(5, 3)).item() == 0  # dead features
    axes = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert feature_correlation(axes).item() == pytest.approx(0, abs=1e-6)


def moved(method: str, decorrelation: float) -> torch.Tensor:
    model = normed()
    play(METHODS.build(method), model, data(count=33), decorrelation=decorrelation)
    return vector(model)


@pytest.mark.parametrize("method", ["sgd", "fedprox", "fedelr", "fedlsr", "selfie", "joint-optim", "fedcorr"])
def test_every_method_gets_it_and_weight_zero_is_the_method(method: str) -> None:
    assert torch.equal(moved(method, 0.0), moved(method, 0.0))
    assert not torch.equal(moved(method, 0.1), moved(method, 0.0))


def test_a_step_adds_its_gradient() -> None:
    """A step on all examples with and without it: the difference is rate x weight x the gradient of the term."""
    own, weight = data(count=20), 0.7
    steps = {}
    for decorrelation in (0.0, weight):
        model = normed()
        play(METHODS.build("sgd"), model, own, epochs=1, batch_size=20, momentum=0.0, decorrelation=decorrelation)
        steps[decorrelation] = vector(model).double()
    model = normed().double().train()
    body = model[:4]  # type: ignore[index]
    inputs = own.features.double() / 16
    scores = body(inputs)
    scores = (scores - scores.mean(0)) / (scores.var(0) + 1e-8).sqrt()
    product = scores.T @ scores
    term = (product.square().sum() - product.diagonal().square().sum()) / (16 * 15) / 20
    term.backward()
    slopes = torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
    )
    torch.testing.assert_close(steps[0.0] - steps[weight], 0.1 * weight * slopes, rtol=1e-3, atol=1e-6)


def test_it_spreads_the_features_of_a_client_with_two_classes() -> None:
    """The effective rank (exponential of the entropy of the eigenvalues) of the features' correlation matrix."""
    ranks = {}
    for weight in (0.0, 0.1):
        model, own = normed(), data(count=60, keep_classes=2, wrong=0.0)
        play(METHODS.build("sgd"), model, own, epochs=20, batch_size=30, decorrelation=weight)
        with torch.no_grad():
            features = Digits().features(model.eval(), Digits().prepare(own.features)).numpy()
        shares = np.linalg.eigvalsh(np.corrcoef(features[:, features.std(0) > 1e-3].T)).clip(1e-12)
        ranks[weight] = np.exp(-(shares / shares.sum() * np.log(shares / shares.sum())).sum())
    assert ranks[0.1] > 2 * ranks[0.0]


def test_models_without_learned_features_are_refused_before_the_start() -> None:
    (issue,) = feature_issues(Digits(), linear(), "train.decorrelation")
    assert issue.level == "error"
    assert "train.decorrelation has no effect: what the last layer of this model is given is not learned" in issue.line
    assert feature_issues(Digits(), normed(), "train.decorrelation") == []
