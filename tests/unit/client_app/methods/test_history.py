"""Prediction history: a window of the last answers, means and frequencies of what is filled, its way through states."""

import logging

import numpy as np
import pytest
import torch

from client_app.methods import SELFIE, History, JointOptim, RoFL, RoundConfig
from tests.unit.client_app.methods.stepping import STREAM, context_of, data, normed, vector

ONES = np.ones(20, np.int64)
NOTHING = torch.zeros((), dtype=torch.int16)


def test_it_keeps_the_last_answers_only() -> None:
    history = History.empty(3, 2, torch.zeros(1))
    for answer in (1.0, 2.0, 4.0):
        history.record(torch.tensor([2, 0]), torch.tensor([[answer], [10 * answer]]))
    everything = torch.arange(3)
    assert history.mean(everything).tolist() == [[30.0], [0.0], [3.0]]
    assert history.filled(everything).tolist() == [2, 0, 2]
    assert history.seen.tolist() == [3, 0, 3]


def test_means_are_those_of_the_filled_slots() -> None:
    history = History.empty(2, 10, torch.zeros(2))
    history.record(torch.tensor([1]), torch.tensor([[0.2, 0.8]]))
    history.record(torch.tensor([1]), torch.tensor([[0.6, 0.4]]))
    torch.testing.assert_close(history.mean(torch.tensor([1, 0])), torch.tensor([[0.4, 0.6], [0.0, 0.0]]))


def test_frequencies_are_those_of_numpy_and_empty_slots_are_not_class_0() -> None:
    history, draws = History.empty(4, 5, NOTHING), np.random.default_rng(0)
    drawn = draws.integers(3, size=(8, 4))
    for answers in drawn[:3]:
        history.record(torch.arange(4), torch.from_numpy(answers))
    early = np.stack([np.bincount(column, minlength=3) / 3 for column in drawn[:3].T])
    np.testing.assert_allclose(history.frequencies(torch.arange(4), 3), early, rtol=1e-6)
    for answers in drawn[3:]:
        history.record(torch.arange(4), torch.from_numpy(answers))
    late = np.stack([np.bincount(column, minlength=3) / 5 for column in drawn[3:].T])
    np.testing.assert_allclose(history.frequencies(torch.arange(4), 3), late, rtol=1e-6)
    assert History.empty(1, 5, NOTHING).frequencies(torch.arange(1), 3).tolist() == [[0.0, 0.0, 0.0]]


def test_a_state_brings_it_back_and_it_goes_on_as_if_it_had_stayed() -> None:
    stayed = History.empty(2, 3, NOTHING)
    for answer in range(4):
        stayed.record(torch.arange(2), torch.tensor([answer, 9 - answer]))
    state = stayed.arrays("h")
    assert {name: array.dtype.name for name, array in state.items()} == {"h": "int16", "h-seen": "int64"}
    back = History.restore(state, "h", 2, 3, NOTHING)
    for history in (stayed, back):
        history.record(torch.arange(2), torch.tensor([5, 5]))
    assert torch.equal(back.values, stayed.values)
    assert back.values.sort(1).values.tolist() == [[2, 3, 5], [5, 6, 7]]


def test_a_history_is_not_changed_by_what_goes_on_after_it_was_kept() -> None:
    history = History.empty(1, 1, NOTHING)
    back = History.restore(history.arrays("h"), "h", 1, 1, NOTHING)
    back.record(torch.tensor([0]), torch.tensor([7]))
    assert history.values.tolist() == [[0]]


@pytest.mark.parametrize("shape", [(2, 4), (3, 3)])
def test_one_that_does_not_fit_is_dropped_and_it_is_said(
    shape: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    state = History.empty(*shape, NOTHING).arrays("h")
    with caplog.at_level(logging.WARNING):
        history = History.restore(state, "h", 2, 3, NOTHING)
    assert history.values.shape == (2, 3)
    assert f"starts anew: it is {shape}, and needed (2, 3)" in caplog.text


ABSENT = {
    "selfie": (
        SELFIE(warmup_rounds=0, history=1, noise_rate=0.0),
        {"history": np.full((20, 1), 9), "history-seen": ONES},
    ),
    "joint-optim": (JointOptim(warmup_rounds=0), {}),
    "rofl": (RoFL(pseudo_after=0, forget_rate=0.0), {}),
}


@pytest.mark.parametrize("name", ABSENT)
def test_labels_may_come_to_be_of_a_class_that_was_never_given(name: str) -> None:
    """With la-ce such a label has an infinite loss as the client's counts are; then each class counts as one."""
    (method, state), own = ABSENT[name], data(count=20, keep_classes=9)
    model = normed()
    with torch.no_grad():
        model[4].bias[9] = 20.0  # type: ignore[index, union-attr]  # the received model calls everything 9
    centroids = {"centroids": np.zeros((10, 16), np.float32)} if name == "rofl" else {}
    result = method.fit(model, context_of(own, "la-ce"), RoundConfig(1, 0.01, STREAM, arrays=centroids), state)
    assert np.isfinite(result.metrics["train-loss"])
    assert torch.isfinite(vector(model)).all()
