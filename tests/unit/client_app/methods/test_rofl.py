"""RoFL: its step against NumPy, centroids at client and server, limit cases."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from client_app.methods import METHODS, FitResult, RoFL, RoundConfig
from client_app.methods.rofl import CENTROIDS, median_of_known, moved, nearest, similar_mean
from client_app.methods.sgd import LocalSGD
from tasks.issues import RunContext
from tasks.settings import Settings
from tests.unit.client_app.methods.stepping import (
    RATE,
    TASK,
    Array,
    context_of,
    data,
    inputs_of,
    linear,
    normed,
    play,
    softmax,
    trained,
    vector,
)

DRAWS = np.random.default_rng(0)
PLAIN = RoFL(forget_rate=0.0, centroid_weight=0.0, entropy_weight=0.0)


def fit(method: RoFL, model: nn.Module, own: object, centroids: Array, rounds: int = 1, **options: object) -> FitResult:
    config = RoundConfig(rounds, RATE, (1, 0, 1), arrays={CENTROIDS: centroids.astype(np.float32)})
    return method.fit(model, context_of(own, **options), config, {})  # type: ignore[arg-type]


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10)
    return nn.Sequential(nn.Flatten(), *layers)


def answers(parameters: Array, inputs: Array) -> tuple[Array, Array]:
    """Return features (n, 6) and probabilities (n, 10) of the model above with these parameters."""
    first, bias, last, offset = np.split(parameters, np.cumsum([384, 6, 60]))
    z = np.tanh(inputs @ first.reshape(6, 64).T + bias)
    return z, np.asarray(softmax(z @ last.reshape(10, 6).T + offset))


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("server_round", [5, 6, 7])
def test_a_step_is_the_published_one(server_round: int) -> None:
    """R is ramped to 0.15 in round 5, and pseudo labels begin after round 6; two centroids are unknown."""
    own, model = data(count=20), two_layers()
    inputs, begin = inputs_of(own), vector(model).double().numpy()
    z0, p0 = answers(begin, inputs)
    centroids = np.stack([z0[own.labels == label].mean(0) + 0.1 * DRAWS.normal(size=6) for label in range(10)])
    centroids[[3, 4]] = 0.0
    kept = np.argsort(-np.log(p0[np.arange(20), own.labels]))[: math.ceil(20 * (1 - 0.3 * min(server_round / 10, 1)))]
    near = [max((c for c in range(10) if c not in (3, 4)), key=lambda c: cosine(z, centroids[c])) for z in z0]
    believed = [place for place in kept if near[place] == own.labels[place]]
    labels = own.labels.copy()
    if server_round > 6:
        labels = np.where(np.array(near) == own.labels, own.labels, p0.argmax(1))
    assert 0 < len(believed) < len(kept)

    def loss(parameters: Array) -> float:
        z, p = answers(parameters, inputs)
        distance = np.mean([((z[place] - centroids[own.labels[place]]) ** 2).mean() for place in believed])
        entropy = -(p[kept] * np.log(p[kept])).sum(1).mean()
        likely = -np.log(p[kept, labels[kept]]).mean()
        return float(likely + min(server_round / 6, 1) * 2.0 * distance + 0.8 * entropy)

    slopes = np.array([(loss(begin + h) - loss(begin - h)) / 2e-5 for h in 1e-5 * np.eye(len(begin))])
    method = RoFL(forget_rate=0.3, pseudo_after=6, centroid_weight=2.0)
    result = fit(method, model, own, centroids, server_round, epochs=1, batch_size=20, momentum=0.0)
    np.testing.assert_allclose(vector(model).double().numpy(), begin - RATE * slopes, rtol=0, atol=2e-6)

    expected = centroids.copy()
    for label in range(10):
        members = [place for place in kept if own.labels[place] == label]
        if members:
            mean = z0[members].mean(0)
            s = 1.0 if label in (3, 4) else cosine(centroids[label], mean)
            expected[label] = (1 - s**2) * centroids[label] + s**2 * mean
    np.testing.assert_allclose(result.arrays[CENTROIDS], expected, atol=1e-6)


def test_without_any_term_it_is_plain_training_and_yet_makes_centroids() -> None:
    own, model, plain = data(), normed(), normed()
    result = fit(PLAIN, model, own, np.zeros((10, 16)))
    play(LocalSGD(), plain, own)
    assert torch.equal(vector(model), vector(plain))
    assert np.any(result.arrays[CENTROIDS] != 0, axis=1).tolist() == [label in own.labels for label in range(10)]
    for change in ({"forget_rate": 0.5, "forget_rounds": 0}, {"entropy_weight": 0.8}, {"pseudo_after": 0}):
        other = normed()
        fit(RoFL(**{**PLAIN.__dict__, **change}), other, own, DRAWS.normal(size=(10, 16)))
        assert not torch.equal(vector(other), vector(plain)), change
    assert not torch.equal(trained(LocalSGD(), own), vector(linear()))


def test_the_distance_draws_features_to_the_centroids() -> None:
    own = data(count=60, wrong=0.0)
    model, centroids = normed(), np.zeros((10, 16))
    for _ in range(2):
        centroids = fit(PLAIN, model, own, centroids, epochs=3).arrays[CENTROIDS].astype(np.float64)
    start, apart = model.state_dict(), {}
    start = {name: tensor.clone() for name, tensor in start.items()}
    for weight in (0.0, 1.0):
        model.load_state_dict(start)
        fit(RoFL(forget_rate=0.0, entropy_weight=0.0, centroid_weight=weight), model, own, centroids, 100, epochs=10)
        with torch.no_grad():
            z = TASK.features(model.eval(), TASK.prepare(own.features)).numpy()
        means = np.stack([z[own.labels == label].mean(0) for label in range(10)])
        within = ((z - means[own.labels]) ** 2).sum()
        apart[weight] = within / ((z - z.mean(0)) ** 2).sum()
    assert apart[1.0] < 0.8 * apart[0.0]


def test_nothing_is_near_to_an_unknown_centroid() -> None:
    centroids = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -3.0]])
    features = torch.tensor([[2.0, 0.1], [0.1, -1.0], [-1.0, 0.9]])
    assert nearest(features, centroids).tolist() == [1, 2, 2]
    assert nearest(features, torch.zeros(3, 2)).tolist() == [-1, -1, -1]


def test_centroids_move_by_the_square_of_the_cosine() -> None:
    centroids = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0], [2.0, 2.0], [4.0, 4.0]])
    found = moved(centroids, features, torch.tensor([0, 1, 2, 2]))
    expected = [[1 - 0.36 + 0.36 * 3, 0.36 * 4], [1.0, 0.0], [3.0, 3.0], [1.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_the_server_weighs_by_cosine() -> None:
    present = np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    one = np.array([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [-1.0, -1.0], [0.0, 0.0], [5.0, 0.0]])
    two = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 3.0], [1.0, -1.0], [0.0, 0.0], [-1.0, -1.0]])
    expected = [
        (1.0 * one[0] + 0.6 * two[0]) / 1.6,  # cosines 1 and 0.6
        one[1],  # the only client that knows a class which nobody knew
        (one[2] + two[2]) / 2,  # none is similar: the plain mean
        (one[3] + two[3]) / 2,
        [0.0, 0.0],
        one[5],  # the other one points away
    ]
    for weights in ([0.5, 0.5], [0.9, 0.1]):  # example counts do not matter
        np.testing.assert_allclose(similar_mean(np.stack([one, two]), np.array(weights), present), expected)


def test_the_robust_rule_takes_medians_of_those_who_know_the_class() -> None:
    values = np.array([[[1.0, 5.0], [0, 0]], [[2.0, 6.0], [0, 0]], [[1e9, -1e9], [0, 0]], [[0, 0], [0, 0]]])
    present = np.array([[9.0, 9.0], [7.0, 7.0]])
    assert median_of_known(values, np.full(4, 0.25), present).tolist() == [[2.0, 5.0], [7.0, 7.0]]


def test_the_centroids_are_declared_for_the_model() -> None:
    model = normed().train()
    (declared,) = RoFL().extra_arrays(TASK, model)
    assert (declared.name, declared.shape, declared.dtype) == ("centroids", (10, 16), "float32")
    assert not declared.first().any()
    assert model.training


def test_a_run_without_labels_of_the_received_model_is_said() -> None:
    method = METHODS.build("rofl")
    (issue,) = method.issues(RunContext(Settings(num_server_rounds=100), sampled=6))
    assert "after 100 rounds (pseudo_after), and the run has 100: it only leaves out large losses" in issue.line
    assert method.issues(RunContext(Settings(num_server_rounds=101), sampled=6)) == []
