"""FedDiv: a round against NumPy, SciPy and scikit-learn in float64, limit cases, what is selected, and the filter."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from torch import nn

from client_app.methods import METHODS, FitResult, RoundConfig, State
from client_app.methods.feddiv import FILTER, FedDiv, distance_from_uniform, usable
from client_app.trainer import LocalData
from tasks.base import ClientData
from tasks.gaussian_mixture import fit_mixture
from tasks.seeds import torch_seed
from tests.unit.client_app.methods.stepping import RATE, TASK, data, linear, softmax, vector
from tests.unit.client_app.methods.stepping import plain_context as context

NONE = np.zeros((2, 3))
GROUPS = np.array([[0.1, 0.01, 0.6], [0.7, 0.04, 0.4]])


def fit(
    method: FedDiv,
    model: nn.Module,
    own: ClientData,
    groups: np.ndarray = NONE,
    state: State | None = None,
    **options: Any,
) -> FitResult:
    asked = RoundConfig(9, RATE, (1, 0, 9), arrays={FILTER: groups})
    return method.fit(model, context(own, **options), asked, state or {})


def taught(count: int = 300) -> nn.Module:
    model, own = linear(), data(count, wrong=0.0)
    METHODS.build("sgd").fit(model, context(own, epochs=15), RoundConfig(1, RATE, (1, 0, 1)), {})
    return model


def scores_of(model: nn.Module, own: ClientData) -> np.ndarray:
    with torch.no_grad():
        return softmax(model(TASK.prepare(own.features)).double().numpy())


def scaled(losses: np.ndarray) -> np.ndarray:
    return np.asarray((losses - losses.min()) / (losses.max() - losses.min()))


def selected(p: np.ndarray, own: ClientData, unbiased: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """What is to be trained on, as the paper says it: places and labels."""
    losses = scaled(-np.log(p[np.arange(len(own)), own.labels]))
    density = [weight * norm.pdf(losses, mean, variance**0.5) for mean, variance, weight in GROUPS]
    clean = density[0] >= density[1]
    assert (~clean).mean() > 0.1
    labels = np.where(~clean & (p.max(1) >= 0.75), p.argmax(1), own.labels)
    kept = clean | (p.max(1) >= 0.75)
    if unbiased is not None:
        kept &= p.argmax(1) == unbiased
    return np.flatnonzero(kept), labels


@pytest.mark.parametrize("known", [False, True])
def test_a_round_is_the_published_algorithm(known: bool):
    own, model, method = data(60, wrong=0.4), taught(), FedDiv(mixup_alpha=0.0, prior_weight=0.7)
    p = scores_of(model, own)
    guesses = np.where(np.arange(60) % 5 == 0, 0, p.argmax(1))
    prior = np.arange(1, 11) / 55
    state = {"unbiased": guesses, "prior": prior, "labels": own.labels} if known else {}
    places, labels = selected(p, own, guesses if known else None)
    assert 20 < len(places) < 60

    layer, inputs = model[1], own.features.double().flatten(1).numpy() / 16  # type: ignore[index]
    weight, bias = layer.weight.detach().double().numpy().copy(), layer.bias.detach().double().numpy().copy()  # type: ignore[union-attr, operator]
    chosen = LocalData(own.features[torch.from_numpy(places)], torch.from_numpy(labels[places]))
    for epoch in context(own).trainer.epochs(linear(), chosen, torch_seed(1, "train", 0, 9)):
        for batch in epoch:
            rows = places[batch.indices.numpy()]
            q = softmax(inputs[rows] @ weight.T + bias)
            pull = -0.7 / 10 / q.mean(0) / len(rows)  # derivative of the penalty by each q_k
            slopes = (q - np.eye(10)[labels[rows]]) / len(rows) + q * (pull - (q * pull).sum(1, keepdims=True))
            weight -= RATE * slopes.T @ inputs[rows]
            bias -= RATE * slopes.sum(0)

    result = fit(method, model, own, GROUPS, state)
    sent = [parameter.detach().numpy() for parameter in model.parameters()]
    np.testing.assert_allclose(sent[0], weight, atol=2e-6)
    np.testing.assert_allclose(sent[1], bias, atol=2e-6)
    after = softmax(inputs @ weight.T + bias)
    before = prior if known else np.full(10, 0.1)
    np.testing.assert_array_equal(result.state["labels"], labels)
    np.testing.assert_array_equal(result.state["unbiased"], (np.log(after) - 0.5 * np.log(before)).argmax(1))
    np.testing.assert_allclose(result.state["prior"], 0.2 * before + 0.8 * after.mean(0), atol=1e-6)
    reference = GaussianMixture(
        2, weights_init=GROUPS[:, 2], means_init=GROUPS[:, :1], precisions_init=1 / GROUPS[:, 1].reshape(2, 1, 1)
    ).fit(scaled(-np.log(after[np.arange(60), own.labels]))[:, None])
    expected = np.stack([reference.means_[:, 0], reference.covariances_[:, 0, 0], reference.weights_], 1)
    np.testing.assert_allclose(result.arrays[FILTER], expected[np.argsort(expected[:, 0])], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "groups"),
    [
        (FedDiv(mixup_alpha=0.0, prior_weight=0.0, clean_threshold=1.0), GROUPS),
        (FedDiv(mixup_alpha=0.0, prior_weight=0.0), NONE),  # nobody has sent a filter yet
        (FedDiv(mixup_alpha=0.0, prior_weight=0.0, warmup_rounds=9), GROUPS),
    ],
)
def test_where_nothing_is_filtered_it_is_plain_training(method: FedDiv, groups: np.ndarray):
    own, model, plain = data(), linear(), linear()
    METHODS.build("sgd").fit(plain, context(own), RoundConfig(9, RATE, (1, 0, 9)), {})
    result = fit(method, model, own, groups)
    assert torch.equal(vector(model), vector(plain))
    np.testing.assert_array_equal(result.state["labels"], own.labels)


def test_most_wrong_labels_are_left_out_or_put_right():
    own, model, truth = data(200, wrong=0.4), taught(), TASK.train_examples().labels
    p = torch.from_numpy(scores_of(model, own)).float()
    losses = scaled(-np.log(p.double().numpy()[np.arange(200), own.labels]))
    places, labels = FedDiv()._select(p, torch.from_numpy(own.labels), fit_mixture(losses, 0), None)
    right = labels.numpy() == truth[own.ids]
    assert (own.labels == truth[own.ids]).mean() == 0.6
    assert right[places.numpy()].mean() > 0.95
    assert len(places) > 160


def test_if_no_prediction_is_consistent_the_clean_examples_are_kept():
    own, model = data(60, wrong=0.4), taught()
    p = scores_of(model, own)
    places, _ = FedDiv()._select(
        torch.from_numpy(p).float(), torch.from_numpy(own.labels), GROUPS, torch.from_numpy((p.argmax(1) + 1) % 10)
    )
    losses = scaled(-np.log(p[np.arange(60), own.labels]))
    clean = 0.6 * norm.pdf(losses, 0.1, 0.1) >= 0.4 * norm.pdf(losses, 0.7, 0.2)
    np.testing.assert_array_equal(places.numpy(), np.flatnonzero(clean))
    none_clean = np.array([[5.0, 0.01, 0.5], [6.0, 4.0, 0.5]])
    nothing = torch.full((60, 10), 0.1)
    places, _ = FedDiv()._select(nothing, torch.from_numpy(own.labels), none_clean, None)
    assert len(places) == 60


@pytest.mark.parametrize(("threshold", "is_clean"), [(0.1, True), (0.099, False)])
def test_a_client_at_the_threshold_counts_as_clean(threshold: float, is_clean: bool):
    own, p = data(10, wrong=0.0), torch.full((10, 10), 0.1)
    p[0] = torch.eye(10)[(own.labels[0] + 1) % 10] * 0.9 + 0.01  # one of ten has a large loss, and a sure prediction
    labels = torch.from_numpy(own.labels)
    places, found = FedDiv(clean_threshold=threshold)._select(p, labels, GROUPS, None)
    assert len(places) == 10
    assert torch.equal(found, labels) == is_clean


def test_mixup_and_the_prior_change_training():
    found = [linear() for _ in range(3)]
    for model, method in zip(found, (FedDiv(), FedDiv(mixup_alpha=0.0), FedDiv(prior_weight=0.0)), strict=True):
        fit(method, model, data())
    weights = [vector(model) for model in found]
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_distance_from_uniform_is_the_divergence():
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mean = softmax(logits.detach().numpy()).mean(0)
    assert distance_from_uniform(logits).item() == pytest.approx((0.25 * np.log(0.25 / mean)).sum())
    assert distance_from_uniform(torch.zeros(3, 5)).item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.gradcheck(distance_from_uniform, (logits,))


def test_the_server_averages_the_last_filters_of_all_clients():
    (declared,) = FedDiv().extra_arrays(TASK, linear())
    assert (declared.name, declared.shape, declared.dtype, declared.remembered) == (FILTER, (2, 3), "float64", True)
    assert not declared.first().any()
    assert usable(declared.first()) is None


def test_a_filter_from_the_server_is_put_in_order():
    found = usable(np.array([[0.7, 0.04, 0.6], [0.1, -1.0, 0.6]]))
    assert found is not None
    assert found.tolist() == [[0.1, 1e-6, 0.5], [0.7, 0.04, 0.5]]


def test_a_state_that_does_not_fit_is_said(caplog: pytest.LogCaptureFixture):
    state = {"unbiased": np.zeros(3, np.int64), "prior": np.full(10, 0.1), "labels": np.zeros(3, np.int64)}
    fit(FedDiv(), taught(), data(60, wrong=0.4), GROUPS, state)
    assert "its state does not fit the data" in caplog.text


def test_the_audit_sees_the_labels_of_the_last_round():
    own = data(60, wrong=0.4)
    assert FedDiv().corrected({}) is None
    result = fit(FedDiv(), taught(), own, GROUPS)
    believed = FedDiv().corrected(result.state)
    assert believed is not None
    np.testing.assert_array_equal(believed.argmax(1), result.state["labels"])
    assert (believed.argmax(1) != own.labels).any()
