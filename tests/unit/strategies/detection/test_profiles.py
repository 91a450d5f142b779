"""One profile a client from its answers about several models."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies.detection import ProfileAnswer, answers_of, from_table, mean_profiles, to_table
from strategies.detection.base import Counts
from strategies.gram import Doubles


def table(
    rounds: int, clients: int = 5, classes: int = 3, seed: int = 0
) -> tuple[Doubles, Counts, list[ProfileAnswer]]:
    """Losses (R, N, K) and counts (N, K) with missing classes, and the answers that hold them."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, 4, (clients, classes)) + np.eye(clients, classes, dtype=np.int64)
    losses = np.where(counts > 0, draw.uniform(0.1, 3.0, (rounds, clients, classes)), 0.0)
    answers = []
    for i in range(rounds):
        answers += answers_of(i + 1, {c: (losses[i, c], counts[c]) for c in range(clients)})
    return losses, counts, answers


def without(answers: list[ProfileAnswer], server_round: int, client: int) -> list[ProfileAnswer]:
    return [answer for answer in answers if (answer.server_round, answer.client) != (server_round, client)]


def test_about_one_model_the_profiles_are_the_answers_to_the_last_bit():
    losses, counts, answers = table(1)
    found = mean_profiles(answers)
    for value, wanted in zip(found, (np.arange(5), losses[0], counts), strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_about_several_models_they_are_the_means():
    losses, counts, answers = table(4)
    clients, means, kept = mean_profiles(answers)
    np.testing.assert_allclose(means, losses.mean(axis=0), atol=1e-12)
    np.testing.assert_array_equal(kept, counts)
    assert clients.tolist() == [0, 1, 2, 3, 4]


@given(st.integers(0, 1000), st.integers(2, 6))
def test_who_missed_a_question_is_not_judged_by_how_good_that_model_was(seed: int, rounds: int):
    counts, drift = np.full((6, 2), 10), np.random.default_rng(seed).uniform(0, 5, (rounds, 2))
    own = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    answers = []
    for i in range(rounds):
        answers += answers_of(i, {c: (own[c] + drift[i], counts[c]) for c in range(6) if (i, c) != (0, 0)})
    _, means, _ = mean_profiles(answers)
    shift = abs(means[0] - means[1]).max()  # what is left: the others' mean is 0.1 higher without client 0
    assert shift <= 0.1 + 1e-9


def test_the_order_of_the_answers_says_nothing():
    _, _, answers = table(3)
    order = np.random.default_rng(1).permutation(15)
    for value, wanted in zip(mean_profiles([answers[i] for i in order]), mean_profiles(answers), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-12)


def test_half_of_the_questions_are_enough_and_fewer_are_not():
    _, _, answers = table(4)
    answers = without(without(answers, 1, 0), 2, 0)
    assert mean_profiles(answers)[0].tolist() == [0, 1, 2, 3, 4]
    assert mean_profiles(without(answers, 3, 0))[0].tolist() == [1, 2, 3, 4]


def test_a_class_counts_only_in_the_rounds_in_which_the_client_had_it():
    """Both clients are asked twice; client 0 has no example of class 1 in the second round."""
    first = {0: (np.array([1.0, 4.0]), np.array([2, 1])), 1: (np.array([1.0, 2.0]), np.array([2, 1]))}
    second = {0: (np.array([3.0, 0.0]), np.array([3, 0])), 1: (np.array([3.0, 4.0]), np.array([3, 1]))}
    _, means, counts = mean_profiles(answers_of(1, first) + answers_of(2, second))
    model = [3.0, 4.0]  # mean losses of class 1 in each round, over those who have it: 3.5 over both
    assert means.tolist() == [[2.0, 4.0 + 3.5 - model[0]], [2.0, ((2.0 + 3.5 - model[0]) + (4.0 + 3.5 - model[1])) / 2]]
    assert counts.tolist() == [[3, 1], [3, 1]]


def test_no_answers_make_no_profiles():
    assert [len(part) for part in mean_profiles([])] == [0, 0, 0]


@given(st.integers(0, 4), st.integers(1, 5), st.integers(1, 3), st.integers(0, 1000))
def test_a_table_of_answers_holds_them_to_the_last_bit(rounds: int, clients: int, classes: int, seed: int):
    _, _, answers = table(rounds, clients, classes, seed)
    columns = to_table(answers)
    assert [column.shape for column in columns.values()][:2] == [(rounds * clients,)] * 2
    back = from_table(columns)
    assert [(one.server_round, one.client) for one in back] == [(one.server_round, one.client) for one in answers]
    for one, wanted in zip(back, answers, strict=True):
        assert one.losses.tobytes() == wanted.losses.tobytes()
        assert one.counts.tobytes() == wanted.counts.tobytes()
