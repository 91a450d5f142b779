"""Noise rate: the estimate holds the truth on simulated labels, and its parts are those of the formulas."""

from itertools import product

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import dirichlet

from client_app import noise_rate
from client_app.noise_rate import Beliefs, contradicted, estimate_noise, with_mean
from tasks.base import Labels

CLASSES = 5


def simulated(seed: int, rate: float, size: int = 400, pair: bool = False) -> tuple[Beliefs, Labels, Labels]:
    """Return calibrated beliefs, given labels and true ones: the truth is drawn from the beliefs themselves."""
    draw = np.random.default_rng(seed)
    beliefs = softmax(3 * draw.normal(size=(size, CLASSES)), axis=1)
    truth = (beliefs.cumsum(1) > draw.random(size)[:, None]).argmax(1)
    away = np.ones(size, np.int64) if pair else draw.integers(1, CLASSES, size)
    return beliefs, np.where(draw.random(size) < rate, (truth + away) % CLASSES, truth), truth


@pytest.mark.parametrize(("rate", "pair", "power"), [*product((0.1, 0.4), (False, True), (0.5, 2.0))])
def test_the_estimate_is_right_whatever_the_models_modesty(
    rate: float, pair: bool, power: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(noise_rate, "SLACK", 1e3)  # the model is what the formulas say
    for name in ("LEAN", "WEAKNESS", "FLOOR", "SHARED"):
        monkeypatch.setattr(noise_rate, name, 0.0)
    held = []
    for seed in range(4):
        beliefs, given, truth = simulated(seed, rate, 1000, pair)
        found = estimate_noise(softmax(power * np.log(beliefs), axis=1), given)
        held.append(found.low <= (given != truth).mean() <= found.high)
        assert found.rate == pytest.approx((given != truth).mean(), abs=0.08)
        assert found.accuracy == pytest.approx((beliefs.argmax(1) == truth).mean(), abs=0.08)
    assert sum(held) >= 2


def test_the_probability_of_being_wrong_is_calibrated():
    beliefs, given, truth = simulated(1, 0.3, 4000)
    doubts = estimate_noise(beliefs, given).wrong(given)
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        here = (doubts >= low) & (doubts <= low + 0.2)
        assert (given != truth)[here].mean() == pytest.approx(doubts[here].mean(), abs=0.07)


def test_with_a_known_rate_and_symmetric_noise_the_posterior_is_bayes_rule(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(noise_rate, "RATES", np.array([0.3]))
    monkeypatch.setattr(noise_rate, "POWERS", np.array([2.0]))
    monkeypatch.setattr(noise_rate, "CONCENTRATIONS", (np.inf,))
    beliefs, given = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]), np.array([1, 1])
    truth = beliefs**2 / (beliefs**2).sum(1, keepdims=True)
    joint = truth * np.array([0.15, 0.7, 0.15])  # probability of the label 1 for each true class
    expected = joint / joint.sum(1, keepdims=True)
    found = estimate_noise(beliefs, given)
    np.testing.assert_allclose(found.posterior, expected)
    assert found.accuracy == pytest.approx((expected[0, 0] + expected[1, 1]) / 2)
    mean, own = 1 - expected[:, 1].mean(), (expected[:, 1] * (1 - expected[:, 1])).sum() / 4
    top = max(mean, 0.5)  # the model prefers another class for one of two
    assert found.rate == pytest.approx(mean + noise_rate.LEAN * (top - mean))
    down = np.sqrt(own + (noise_rate.WEAKNESS * (1 - found.accuracy)) ** 2 + noise_rate.FLOOR**2)
    assert found.low == pytest.approx(max(0.0, mean - 1.645 * down), abs=1e-3)
    up = np.sqrt(own + top * (1 - top) / 2 + noise_rate.SHARED**2)
    assert found.high == pytest.approx(min(1.0, top + 1.645 * up), abs=1e-3)


def test_a_model_that_cross_entropy_taught_the_noise_does_not_hide_it(monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(3)
    truth = draw.integers(0, CLASSES, 400)
    given = np.where(draw.random(400) < 0.3, (truth + draw.integers(1, CLASSES, 400)) % CLASSES, truth)
    beliefs = 0.7 * np.eye(CLASSES)[truth] + 0.3 * (1 - np.eye(CLASSES)[truth]) / (CLASSES - 1)
    found = estimate_noise(beliefs, given)  # the model gives the probabilities of the given labels, not the true ones
    assert found.rate == pytest.approx((given != truth).mean(), abs=0.03)
    assert found.wrong(given).mean() == pytest.approx((given != truth).mean(), abs=0.05)
    monkeypatch.setattr(noise_rate, "SLACK", 1e3)  # as if nothing bounded the rate from below
    assert estimate_noise(beliefs, given).wrong(given).mean() < 0.2


def test_labels_are_contradicted_by_the_surest_half_weighed_by_the_shares_of_labels():
    beliefs = np.array([[0.9, 0.08, 0.02], [0.3, 0.7, 0.0], [0.6, 0.4, 0.0], [0.2, 0.2, 0.6]])
    given = np.array([1, 0, 0, 0])  # three quarters are 0, a quarter 1, none 2
    # in odds of 0 against 1 with the shares: 33.75, 1.29, 4.5, 3; the first and the third are the surest
    sureness = ((33.75 / 34.75 + 4.5 / 5.5) / 2 - 1 / 3) / (2 / 3)
    assert contradicted(np.log(np.maximum(beliefs, 1e-9)), given) == (0.5, 2, pytest.approx(sureness))
    assert contradicted(np.log(beliefs[:1]), np.array([0])) == (0.0, 1, 1.0)
    assert contradicted(np.zeros((6, 3)), np.array([0, 1, 2, 0, 1, 2]))[2] == pytest.approx(0)


def test_odds_are_multiplied_until_the_mean_is_reached():
    chances = np.array([0.9, 0.5, 0.2, 0.0, 1.0])
    raised = with_mean(chances, 0.7)
    assert raised.mean() == pytest.approx(0.7)
    ratio = (raised[:3] / (1 - raised[:3])) / (chances[:3] / (1 - chances[:3]))
    assert ratio == pytest.approx([ratio[0]] * 3)
    assert raised[3:] == pytest.approx([0, 1], abs=1e-9)
    assert with_mean(np.zeros(4), 0.0) == pytest.approx(np.zeros(4), abs=1e-9)


def test_the_divergence_is_that_of_dirichlet_distributions():
    counts = np.array([[0.0, 3.0, 1.5], [0.0, 0.0, 0.0], [2.0, 7.0, 0.0]])
    expected = 0.0
    for row in range(3):
        off = np.delete(counts[row], row)
        draws = dirichlet(off + 1.0).rvs(200_000, random_state=row)  # two parameters of 1 each: concentration 2
        expected += np.mean(dirichlet(off + 1.0).logpdf(draws.T) - dirichlet([1.0, 1.0]).logpdf(draws.T))
    assert noise_rate._divergence(counts, 2.0) == pytest.approx(expected, abs=0.02)


def test_a_sure_and_agreeing_model_leaves_nothing_to_doubt_and_a_blind_one_says_nothing():
    labels = np.arange(200) % CLASSES
    sure = estimate_noise(np.eye(CLASSES)[labels], labels)
    assert sure.high < 0.11
    assert sure.accuracy > 0.97
    blind = estimate_noise(np.full((200, CLASSES), 1 / CLASSES), labels)
    assert blind.high - blind.low > 0.7


def test_examples_beyond_the_limit_are_judged_too(monkeypatch: pytest.MonkeyPatch):
    beliefs, given, _ = simulated(2, 0.3, 1000)
    whole = estimate_noise(beliefs, given)
    monkeypatch.setattr(noise_rate, "MOST_ENTRIES", 500 * CLASSES)
    part = estimate_noise(beliefs, given)
    assert part.posterior.shape == beliefs.shape
    assert part.rate != whole.rate
    assert part.rate == pytest.approx(whole.rate, abs=0.05)


@pytest.mark.parametrize("shape", [(0, 3), (4, 1)])
def test_without_examples_or_classes_there_is_no_rate(shape: tuple[int, int]):
    with pytest.raises(ValueError, match="needs an example and two classes"):
        estimate_noise(np.ones(shape), np.zeros(shape[0], np.int64))
