"""FedNed's clients: plain training without the role, two models with it, and a step against float64."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client_app.methods import METHODS, FitResult, RoundConfig
from client_app.methods.fedned import FedNed
from tasks.base import ClientData
from tests.unit.client_app.methods.stepping import RATE, context_of, inputs_of, probabilities, stepped
from tests.unit.client_app.methods.test_masked_optim import data, linear, vector

STREAM = (1, 0, 3)


def fit(method: FedNed, own: ClientData, role: str, **options: Any) -> tuple[nn.Module, nn.Module, FitResult]:
    model, second = taught(), linear()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1.0)
    round_config = RoundConfig(3, RATE, STREAM, role, networks=(second,))
    return model, second, method.fit(model, context_of(own, **options), round_config, {})


def taught() -> nn.Module:
    """The received model: it has learned right labels."""
    model, own = linear(), data(60, wrong=0.0)
    METHODS.build("sgd").fit(model, context_of(own, epochs=10), RoundConfig(1, 0.2, (9, 0, 1)), {})
    return model


def plain(own: ClientData, **options: Any) -> nn.Module:
    model = taught()
    METHODS.build("sgd").fit(model, context_of(own, **options), RoundConfig(3, RATE, STREAM), {})
    return model


@pytest.mark.parametrize("role", ["clean", "unknown"])
def test_without_the_role_it_is_plain_training_and_the_second_network_stays(role: str) -> None:
    own = data(60)
    model, second, result = fit(FedNed(), own, role)
    assert torch.equal(vector(model), vector(plain(own)))
    assert torch.equal(vector(second), vector(linear()) + 1.0)
    assert FedNed().corrected(result.state) is None


def test_the_bad_teacher_of_a_noisy_client_is_what_plain_training_would_have_made() -> None:
    own = data(60, wrong=0.5)
    _, second, _ = fit(FedNed(confidence=0.5), own, "noisy")
    assert torch.equal(vector(second), vector(plain(own)))


def sure(own: ClientData, confidence: float, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Which examples the received model is sure of, and its classes, in float64."""
    p = probabilities(vector(taught()).double().numpy(), inputs_of(own)) ** (1 / temperature)
    p /= p.sum(1, keepdims=True)
    return p.max(1) >= confidence, p.argmax(1)


def test_a_step_is_that_of_cross_entropy_on_the_received_models_labels_of_which_it_is_sure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = data(60, wrong=0.5)
    chosen, classes = sure(own, 0.5, 2.0)
    assert 5 < chosen.sum() < 60
    assert (classes != own.labels)[chosen].sum() > 2
    model, _, result = fit(FedNed(confidence=0.5), own, "noisy", epochs=1, batch_size=60, momentum=0.0)
    begin = vector(taught()).double().numpy()
    inputs = inputs_of(own)[chosen]
    monkeypatch.setattr("tests.unit.client_app.methods.stepping.start", lambda: begin)
    places = np.arange(len(inputs)), classes[chosen]
    expected = stepped(lambda w: float(-np.log(probabilities(w, inputs)[places]).mean()))
    np.testing.assert_allclose(vector(model).numpy(), expected, atol=1e-6)
    corrected = FedNed().corrected(result.state)
    assert corrected is not None
    np.testing.assert_array_equal(corrected[chosen].argmax(1), classes[chosen])
    np.testing.assert_allclose(corrected[~chosen], 0.1)


def test_the_temperature_makes_it_harder_to_be_sure() -> None:
    own = data(60, wrong=0.5)
    counts = []
    for temperature in (1.0, 2.0):
        _, _, result = fit(FedNed(confidence=0.5, temperature=temperature), own, "noisy")
        expected, _ = sure(own, 0.5, temperature)
        np.testing.assert_array_equal(result.state["pseudo_labels"] != -1, expected)
        counts.append(expected.sum())
    assert counts[0] > counts[1]


def test_a_model_that_is_sure_of_nothing_comes_back_as_it_was() -> None:
    own = data(60, wrong=0.5)
    model, second, result = fit(FedNed(confidence=1.0), own, "noisy")
    assert torch.equal(vector(model), vector(taught()))
    assert not torch.equal(vector(second), vector(model))
    assert np.isfinite(result.metrics["train-loss"])
