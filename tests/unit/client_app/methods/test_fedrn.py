"""FedRN's clients: what is taken for right against scikit-learn, neighbours' last layers, limit cases, odd states."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import nn

from client_app.methods import METHODS, FitResult, RoundConfig, State
from client_app.methods.fedrn import FedRN, last_layer, probe_input
from client_app.trainer import LocalData
from tasks.base import ClientData
from tasks.extra_arrays import of_network
from tasks.seeds import torch_seed
from tasks.weights import model_arrays
from tests.unit.client_app.methods.stepping import RATE, TASK, data, softmax, vector
from tests.unit.client_app.methods.stepping import plain_context as context

ROUND = 9


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))


def taught(seed: int, wrong: float = 0.0) -> nn.Module:
    model, own = network(seed), data(300, wrong=wrong)
    METHODS.build("sgd").fit(model, context(own, epochs=20, momentum=0.9), RoundConfig(1, RATE, (seed, 0, 1)), {})
    return model


def given(scores: list[float], *neighbours: nn.Module) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {"scores": np.array(scores)}
    for number, one in enumerate(neighbours, 1):
        found |= of_network(number, model_arrays(one))
    return found


def state_of(own: nn.Module) -> State:
    return {f"own/{name}": array.copy() for name, array in model_arrays(own).items()}


def fit(own: ClientData, model: nn.Module, beside: dict[str, np.ndarray], state: State, **options: Any) -> FitResult:
    return FedRN().fit(model, context(own, **options), RoundConfig(ROUND, RATE, (1, 0, ROUND), given=beside), state)


def by_hand(own: ClientData, model: nn.Module) -> np.ndarray:
    """The posterior of the group of small losses under a network, from float64 losses."""
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]  # type: ignore[attr-defined]
    first, second = ([value.detach().double().numpy() for value in layer.parameters()] for layer in layers)
    hidden = np.tanh(own.features.double().flatten(1).numpy() / 16 @ first[0].T + first[1])
    losses = -np.log(softmax(hidden @ second[0].T + second[1])[np.arange(len(own)), own.labels])
    losses = (losses - losses.min()) / np.ptp(losses)
    seed = torch_seed(1, "fedrn-fit", 0, ROUND) % 2**32
    mixture = GaussianMixture(2, max_iter=100, tol=1e-2, reg_covar=5e-4, random_state=seed).fit(losses[:, None])
    return np.asarray(mixture.predict_proba(losses[:, None])[:, mixture.means_.argmin()])


def with_last_layer_trained(own: ClientData, model: nn.Module, chosen: np.ndarray) -> nn.Module:
    """A copy of a network whose last layer has done an epoch of SGD, in float64."""
    copied = network(0)
    copied.load_state_dict(model.state_dict())
    weight, bias = (value.detach().double().numpy().copy() for value in copied[3].parameters())  # type: ignore[index]
    with torch.no_grad():
        hidden = copied[:3](TASK.prepare(own.features)).double().numpy()  # type: ignore[index]
    local = LocalData(own.features[torch.from_numpy(chosen)], torch.from_numpy(own.labels[chosen]))
    trainer = context(own, epochs=1).trainer
    for epoch in trainer.epochs(copied, local, torch_seed(1, "train", 0, ROUND)):
        for batch in epoch:
            rows = chosen[batch.indices.numpy()]
            slopes = (softmax(hidden[rows] @ weight.T + bias) - np.eye(10)[own.labels[rows]]) / len(rows)
            weight -= RATE * slopes.T @ hidden[rows]
            bias -= RATE * slopes.sum(0)
    with torch.no_grad():
        copied[3].weight.copy_(torch.from_numpy(weight))  # type: ignore[index, union-attr, operator]
        copied[3].bias.copy_(torch.from_numpy(bias))  # type: ignore[index, union-attr, operator]
    return copied


def test_a_round_is_the_published_algorithm():
    own, mine, others = data(90, wrong=0.4), taught(1, wrong=0.4), [taught(2), network(3)]
    scores = np.array([0.8, 0.6, 0.2])
    posteriors = [by_hand(own, mine)]
    chosen = np.flatnonzero(posteriors[0] > 0.5)
    posteriors += [by_hand(own, with_last_layer_trained(own, other, chosen)) for other in others]
    right = np.tensordot(scores / scores.sum(), np.stack(posteriors), 1) > 0.5
    assert 30 < right.sum() < 80
    assert (right != (posteriors[0] > 0.5)).any()  # the neighbours matter

    model, plain = network(5), network(5)
    result = fit(own, model, given([*scores], *others), state_of(mine))
    places = torch.from_numpy(np.flatnonzero(right))
    kept = ClientData(0, own.features[places], own.labels[right], own.ids[right], 10)
    METHODS.build("sgd").fit(plain, context(kept), RoundConfig(ROUND, RATE, (1, 0, ROUND)), {})
    assert torch.equal(vector(model), vector(plain))
    for name, array in model_arrays(model).items():
        np.testing.assert_array_equal(result.state[f"own/{name}"], array)
    predicted = model(TASK.prepare(own.features)).argmax(1).numpy()
    assert result.arrays["expertise"] == pytest.approx((predicted == own.labels).mean())
    with torch.no_grad():
        expected = model(probe_input(TASK.input_shape, 1))[0]
    np.testing.assert_allclose(result.arrays["probe-logits"], expected, rtol=1e-6)


@pytest.mark.parametrize("known", [True, False])
def test_without_scores_and_in_the_first_round_it_trains_plainly(known: bool, caplog: pytest.LogCaptureFixture):
    own, model, plain = data(), network(5), network(5)
    METHODS.build("sgd").fit(plain, context(own), RoundConfig(ROUND, RATE, (1, 0, ROUND)), {})
    beside, state = ({}, state_of(taught(1))) if known else (given([1.0, 1.0], taught(2)), {})
    fit(own, model, beside, state)
    assert torch.equal(vector(model), vector(plain))
    assert ("its own last model is lost" in caplog.text) == (not known)


@pytest.mark.parametrize(
    ("scores", "shares"),
    [([0.0, 0.0], [0.5, 0.5]), ([0.0], [1.0]), ([-1.0, 0.5], [0.0, 1.0]), ([0.3, 0.9], [0.25, 0.75])],
)
def test_scores_of_nothing_count_all_alike_and_negative_ones_not_at_all(scores: list[float], shares: list[float]):
    own, mine = data(90, wrong=0.4), taught(1, wrong=0.4)
    posteriors = [by_hand(own, mine)]
    if len(scores) > 1:
        posteriors.append(by_hand(own, with_last_layer_trained(own, network(3), np.flatnonzero(posteriors[0] > 0.5))))
    mean = np.tensordot(shares, np.stack(posteriors), 1)
    neighbours = [network(3)][: len(scores) - 1]
    asked = RoundConfig(ROUND, RATE, (1, 0, ROUND))
    found = FedRN()._right(mine, neighbours, np.array(scores), context(own), asked)
    np.testing.assert_array_equal(found.numpy(), mean > 0.5)
    assert len(scores) == 1 or ((mean > 0.25) != (mean > 0.5)).any()  # twice the shares would show


def test_wrong_labels_are_left_out():
    own, truth = data(200, wrong=0.4), TASK.train_examples().labels
    asked = RoundConfig(ROUND, RATE, (1, 0, ROUND))
    found = FedRN()._right(taught(1), [taught(2)], np.array([1.0, 1.0]), context(own), asked).numpy()
    right = own.labels == truth[own.ids]
    assert right.mean() == 0.6
    assert right[found].mean() > 0.95


def test_the_probe_is_the_same_for_all_clients_of_a_run():
    assert torch.equal(probe_input((1, 8, 8), 1), probe_input((1, 8, 8), 1))
    assert not torch.equal(probe_input((1, 8, 8), 1), probe_input((1, 8, 8), 2))


def test_the_last_layer_is_the_one_that_is_named_or_the_last_with_weights():
    model = network(0)
    assert last_layer(model) is model[3]  # type: ignore[index]
    model.feature_layer = "1"  # type: ignore[assignment]
    assert last_layer(model) is model[1]  # type: ignore[index]
    with pytest.raises(ValueError, match="has no parameters"):
        last_layer(nn.Flatten())
