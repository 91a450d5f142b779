"""Private accuracy: the noise has the distribution that the guarantee is about."""

import math

import numpy as np
import pytest

from client_app.private_accuracy import noisy_accuracy, two_sided_geometric
from tasks.seeds import rng


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 3.0])
def test_the_noise_is_two_sided_geometric(epsilon: float) -> None:
    draws, a = rng(1, "noise", int(10 * epsilon)), math.exp(-epsilon)
    noise = np.array([two_sided_geometric(epsilon, draws) for _ in range(20_000)])
    for k in (-2, -1, 0, 1, 2):
        expected = (1 - a) / (1 + a) * a ** abs(k)
        assert (noise == k).mean() == pytest.approx(expected, abs=5 * math.sqrt(expected / 20_000))
    assert noise.std() == pytest.approx(math.sqrt(2 * a) / (1 - a), rel=0.05)


def test_neighbouring_counts_give_any_answer_with_almost_the_same_probability() -> None:
    """The guarantee itself: log of the ratio of two probabilities is epsilon at most, clipping included."""
    epsilon, draws, count = 0.7, rng(2, "ratio"), 40_000
    first, second = (
        np.round(5 * np.array([noisy_accuracy(right, 5, epsilon, draws) for _ in range(count)])) for right in (2, 3)
    )
    for answer in range(6):
        p, q = (first == answer).mean(), (second == answer).mean()
        error = 5 * math.sqrt(1 / (p * count) + 1 / (q * count))
        assert abs(math.log(p / q)) < epsilon + error
    assert abs(math.log((first == 0).mean() / (second == 0).mean())) > epsilon - 0.1  # and it is not less useful


def test_it_is_a_share_and_with_a_large_budget_the_true_one() -> None:
    draws = rng(3, "share")
    assert noisy_accuracy(7, 10, 50.0, draws) == 0.7
    assert {0.0, 1.0} <= {noisy_accuracy(7, 10, 0.05, draws) for _ in range(200)}
    assert all(0 <= noisy_accuracy(0, 3, 0.05, draws) <= 1 for _ in range(50))
