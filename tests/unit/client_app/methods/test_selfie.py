"""SELFIE: which examples it learns and with which labels, against NumPy; warm-up, limit cases, and what it says."""

import math

import numpy as np
import torch

from client_app.methods import History, State
from client_app.methods.selfie import CLASSES, HISTORY, LABELS, SELFIE, kept_count, steady_labels
from client_app.methods.sgd import LocalSGD
from tests.unit.client_app.methods.stepping import (
    Array,
    data,
    inputs_of,
    linear,
    one_step,
    play,
    probabilities,
    start,
    stepped,
    trained,
)

ALWAYS = 10**6


def history_of(rows: dict[int, list[int]], count: int = 20) -> State:
    """Return a state in which some examples have full histories, the others one of ever other classes."""
    values = np.tile(np.arange(15, dtype=np.int16) % 10, (count, 1))
    for place, row in rows.items():
        values[place] = row
    return {HISTORY: values, f"{HISTORY}-seen": np.full(count, 15)}


def test_a_step_learns_small_losses_and_steady_predictions() -> None:
    """Of the six examples with large losses one was called 7 all the time, another but once; the latter is left out."""
    own = data(count=20)
    inputs, rows = inputs_of(own), np.arange(20)
    order = np.argsort(-np.log(probabilities(start(), inputs)[rows, own.labels])).tolist()
    steady, nearly = order[15], order[16]
    state = history_of({steady: [7] * 15, nearly: [2] * 14 + [4]})
    kept = {*order[: math.ceil(0.7 * 20)], steady}
    labels = own.labels.copy()
    labels[steady] = 7

    def loss(parameters: Array) -> float:
        p = probabilities(parameters, inputs)
        return float(np.mean([-np.log(p[place, labels[place]]) for place in kept]))

    found, result = one_step(SELFIE(noise_rate=0.3, warmup_rounds=1), own, state, server_round=2)
    np.testing.assert_allclose(found, stepped(loss), rtol=0, atol=2e-6)
    assert result.state[f"{HISTORY}-seen"].tolist() == [16] * 20
    np.testing.assert_array_equal(result.state[HISTORY][:, 0], probabilities(start(), inputs).argmax(1))


def test_a_steady_label_is_also_learned_where_the_loss_is_small() -> None:
    own = data(count=20)
    inputs, rows = inputs_of(own), np.arange(20)
    first = int(np.argsort(-np.log(probabilities(start(), inputs)[rows, own.labels]))[0])
    other = (int(own.labels[first]) + 1) % 10
    labels = own.labels.copy()
    labels[first] = other

    def loss(parameters: Array) -> float:
        return float(-np.log(probabilities(parameters, inputs)[rows, labels]).mean())

    method = SELFIE(noise_rate=0.0, warmup_rounds=0)
    found, _ = one_step(method, own, history_of({first: [other] * 15}))
    np.testing.assert_allclose(found, stepped(loss), rtol=0, atol=2e-6)


def test_a_history_must_be_full_and_steady() -> None:
    """Entropies by scipy's definition: 15 equal answers 0; one in 15 other 0.245 nats, 0.106 of log 10."""
    history = History(torch.tensor([[4] * 15, [4] * 15, [4] * 14 + [5]], dtype=torch.int16), torch.tensor([15, 14, 99]))
    for threshold, expected in ((0.05, [True, False, False]), (0.107, [True, False, True])):
        steady, labels = steady_labels(history, torch.arange(3), 10, threshold)
        assert steady.tolist() == expected
        assert labels.tolist() == [4, 4, 4]


def test_a_replaced_label_can_change_again() -> None:
    history = History(torch.full((1, 2), 7, dtype=torch.int16), torch.tensor([2]))
    found = []
    for answer in (3, 3):
        found.append(steady_labels(history, torch.arange(1), 10, 0.05))
        history.record(torch.arange(1), torch.tensor([answer]))
    found.append(steady_labels(history, torch.arange(1), 10, 0.05))
    assert [steady.item() for steady, _ in found] == [True, False, True]
    assert [found[0][1].item(), found[2][1].item()] == [7, 3]


def test_the_warm_up_is_plain_training_and_records_predictions() -> None:
    own = data()
    assert torch.equal(trained(SELFIE(), own), trained(LocalSGD(), own))
    boundary = [trained(SELFIE(warmup_rounds=3), own, server_round=number) for number in (3, 4)]
    assert [torch.equal(weights, trained(LocalSGD(), own)) for weights in boundary] == [True, False]
    result = play(SELFIE(), linear(), own, epochs=3)
    assert result.state[f"{HISTORY}-seen"].tolist() == [3] * len(own)
    assert LABELS not in result.state
    assert SELFIE().corrected(result.state) is None


def test_noise_rate_zero_without_steady_predictions_is_plain_training() -> None:
    own, method = data(), SELFIE(noise_rate=0.0, warmup_rounds=0)
    assert torch.equal(trained(method, own), trained(LocalSGD(), own))
    assert not torch.equal(trained(SELFIE(warmup_rounds=0), own), trained(LocalSGD(), own))


def test_the_kept_labels_are_the_given_ones_where_none_is_steady() -> None:
    own, method = data(count=20), SELFIE(warmup_rounds=0)
    _, result = one_step(method, own, history_of({4: [9] * 15}))
    labels = own.labels.copy()
    # the answer of this step has replaced one of the fifteen
    labels[4] = 9 if result.state[HISTORY][4].tolist().count(9) == 15 else own.labels[4]
    np.testing.assert_array_equal(result.state[LABELS], labels)
    assert int(result.state[CLASSES]) == 10
    corrected = method.corrected(result.state)
    assert corrected is not None
    np.testing.assert_array_equal(corrected, np.eye(10, dtype=np.float32)[labels])


def test_how_many_are_kept() -> None:
    assert [kept_count(size, 0.2) for size in (1, 4, 5, 16)] == [1, 4, 4, 13]
    assert kept_count(10, 0.9) == 1
