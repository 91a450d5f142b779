"""Profiles that clients report while they train, each about another model, and what they say of their noise rates."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from strategies.detection import NoiseRate, ProfileAnswer, detect, latest, mean_rates, without_trend
from strategies.detection.reports import read_noise_rate
from tests.detection_cases import profiles


def answers(slope: float, seed: int = 0, noisy: float = 0.0) -> list[ProfileAnswer]:
    """One answer of each of 20 clients, two a round; losses fall by ``slope`` a round, and every third is noisy."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, 9, (20, 4)) + np.eye(20, 4, dtype=np.int64)
    own, hard = noisy * (np.arange(20) % 3 == 0), draw.uniform(0, 1, 4)
    found = []
    for client, row in enumerate(counts):
        losses = np.where(row > 0, 2 + hard + own[client] - slope * (client // 2), 0.0)
        found.append(ProfileAnswer(client // 2, client, losses, row))
    return found


def test_a_common_trend_is_taken_away_and_what_clients_differ_in_stays():
    clients, losses, counts = without_trend(answers(0.3, noisy=0.5))
    _, level, _ = without_trend(answers(0.0, noisy=0.5))
    assert clients.tolist() == list(range(20))
    shift = (losses - level)[counts > 0]
    assert np.ptp(shift) < 1e-9  # the same for all
    assert (losses[counts == 0] == 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_slope_is_that_of_weighted_least_squares(seed: int):
    given = answers(0.2, seed, noisy=1.0)
    _, losses, counts = without_trend(given)
    rounds = np.array([one.server_round for one in given], float)
    design = np.column_stack([np.tile(np.eye(4), (20, 1)), np.repeat(rounds, 4)])
    before = np.array([one.losses for one in given])
    fitted = LinearRegression(fit_intercept=False).fit(design, before.ravel(), counts.ravel())
    moved = (before - losses)[counts > 0]
    away = np.repeat(rounds, 4).reshape(20, 4)[counts > 0]
    np.testing.assert_allclose(np.polyfit(away, moved, 1)[0], fitted.coef_[-1], atol=1e-9)


def test_answers_about_one_model_stay_to_the_last_bit():
    given = [ProfileAnswer(7, one.client, one.losses, one.counts) for one in answers(0.3)]
    np.testing.assert_array_equal(without_trend(given)[1], [one.losses for one in given])
    assert [len(part) for part in without_trend([])] == [0, 0, 0]


def test_the_last_answer_of_a_client_counts_if_it_is_not_too_old():
    def one(server_round: int, client: int, classes: int = 2) -> ProfileAnswer:
        return ProfileAnswer(server_round, client, np.full(classes, float(server_round)), np.ones(classes, np.int64))

    kept = latest([one(5, 1), one(3, 1), one(2, 0), one(4, 2), one(6, 3, classes=3)], after=2)
    assert [(answer.client, answer.server_round) for answer in kept] == [(1, 5), (2, 4)]
    assert latest([], 0) == []


@pytest.mark.parametrize("rate", [None, "0.1", True, -0.01, 1.01, math.nan, math.inf])
def test_a_noise_rate_that_is_none_is_refused(rate: object):
    with pytest.raises(ValueError, match="noise-rate must be a number from 0 to 1"):
        read_noise_rate({"noise-rate": rate})
    assert read_noise_rate({"noise-rate": 0}) == 0.0


def test_noise_rates_are_means_over_the_answers_that_have_one():
    ones = np.ones(1), np.ones(1, np.int64)
    given = [ProfileAnswer(1, 4, *ones, 0.2), ProfileAnswer(2, 4, *ones, 0.4), ProfileAnswer(1, 2, *ones)]
    np.testing.assert_allclose(mean_rates(given, np.array([4, 2])), [0.3, math.nan])


def test_equally_noisy_clients_are_all_noisy_and_one_alone_can_be_judged():
    losses, counts = profiles(np.full(6, 0.4))
    found = detect(NoiseRate(), losses, counts, np.full(6, 0.33))
    assert found.noisy.all()
    assert found.components == 1
    assert (found.posterior > 0.99).all()
    assert not detect(NoiseRate(), losses, counts, np.full(6, 0.01)).noisy.any()
    assert detect(NoiseRate(), losses[:1], counts[:1], np.array([0.4])).noisy.tolist() == [True]
    assert "from 0.33 to 0.33, median 0.33, 6 of 6 above 0.1" in found.reason


def test_the_posterior_is_a_half_at_the_threshold_and_surer_with_more_examples():
    losses, counts = profiles(np.zeros(3))
    counts[2] *= 100
    found = detect(NoiseRate(threshold=0.2, tolerance=0.01), losses, counts, np.array([0.2, 0.23, 0.23]))
    assert found.noisy.tolist() == [False, True, True]
    assert found.posterior[0] == 0.5
    error = math.sqrt(0.2 * 0.8 / 100 + 0.01**2)  # 200 examples, half of them looked at
    assert found.posterior[1] == pytest.approx((1 + math.erf(0.03 / error / math.sqrt(2))) / 2, abs=1e-9)
    assert found.posterior[2] > 0.99


@pytest.mark.parametrize("rates", [None, np.zeros(2), np.array([0.1, math.nan, 0.2])])
def test_without_noise_rates_it_does_not_judge(rates: np.ndarray | None):
    with pytest.raises(ValueError, match="expected the noise rate of each of 3 clients"):
        detect(NoiseRate(), *profiles(np.zeros(3)), rates)


@pytest.mark.parametrize("values", [{"threshold": 0.0}, {"threshold": 1.0}, {"tolerance": 0.0}, {"tolerance": 1.1}])
def test_impossible_arguments_are_refused(values: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(values))):
        NoiseRate(**values)
