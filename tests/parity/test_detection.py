"""Detection against independent sources: scikit-learn's mixtures and regressions, scipy's optimizer and densities."""

import numpy as np
import pytest
from scipy.optimize import brute, fmin
from scipy.stats import norm
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from strategies.detection import Official, Robust, detect
from strategies.detection.detectors import evidence_for_two, fit_two
from strategies.detection.profiles import client_levels
from tests.detection_cases import GRID, TWO_KINDS, profiles


def log_likelihood(means: object, values: object, spread: float) -> float:
    low, high = means  # type: ignore[misc]
    return float(np.log(norm.pdf(values, low, spread) / 2 + norm.pdf(values, high, spread) / 2).sum())


@pytest.mark.parametrize("seed", range(5))
def test_the_means_are_the_likeliest_that_a_search_over_the_plane_finds(seed: int):
    values = np.random.default_rng(seed).normal([0.0] * 8 + [1.5] * 4, 0.4)
    best = brute(lambda means: -log_likelihood(means, values, 0.4), [(-2.0, 4.0), (-2.0, 4.0)], Ns=40, finish=fmin)
    found = fit_two(values, 0.4)
    np.testing.assert_allclose([found.lower, found.upper], sorted(best), atol=1e-3)
    assert found.log_likelihood(values) == pytest.approx(log_likelihood(best, values, 0.4), abs=1e-5)
    one = norm.logpdf(values, values.mean(), 0.4).sum()
    bic = (np.log(12) - 2 * one) - (2 * np.log(12) - 2 * log_likelihood(best, values, 0.4))
    assert evidence_for_two(values, found) == pytest.approx(bic, abs=1e-4)


def test_the_posterior_is_that_of_a_mixture_with_these_groups():
    values = np.linspace(-1, 3, 9)
    groups = fit_two(np.array([0.0, 0.1, 1.9, 2.0]), 0.5)
    mixture = GaussianMixture(2, covariance_type="tied")
    mixture.weights_, mixture.means_ = np.full(2, 0.5), np.array([[groups.lower], [groups.upper]])
    mixture.covariances_, mixture.precisions_cholesky_ = np.array([[0.25]]), np.array([[2.0]])
    np.testing.assert_allclose(groups.posterior(values), mixture.predict_proba(values[:, None])[:, 1], atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_levels_are_those_of_a_regression_over_every_single_example(seed: int):
    losses, counts = profiles(GRID, classes=5, seed=seed, alpha=0.3)
    clients, classes = np.nonzero(counts)
    repeat = counts[clients, classes]
    clients, classes = np.repeat(clients, repeat), np.repeat(classes, repeat)
    # A ridge on the class effects only: those of the clients are made so large that the penalty does not feel them.
    scale = 1e4
    design = np.hstack([np.eye(len(GRID))[clients] * scale, np.eye(5)[classes]])
    ridge = Ridge(alpha=counts.mean(), fit_intercept=False, solver="svd").fit(design, losses[clients, classes])
    levels, _ = client_levels(losses, counts)
    np.testing.assert_allclose(levels, ridge.coef_[: len(GRID)] * scale, atol=1e-6)


def test_the_error_of_a_level_is_how_much_it_varies_over_draws():
    draws = [client_levels(*profiles(np.zeros(20), seed=seed, alpha=100.0)) for seed in range(40)]
    spread = np.mean([np.std(levels) for levels, _ in draws])
    assert np.mean([error for _, error in draws]) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("rates", [TWO_KINDS, GRID])
def test_the_published_recipe_agrees_with_a_mixture_from_scikit_learn(rates: np.ndarray):
    losses, counts = profiles(rates, classes=4, alpha=100.0)
    scaled = (losses - losses.min(0)) / (losses.max(0) - losses.min(0))
    mixture = GaussianMixture(2, random_state=0).fit(scaled)
    upper = int(mixture.means_.sum(1).argmax())
    found = detect(Official(fits=1), losses, counts)
    np.testing.assert_allclose(found.posterior, mixture.predict_proba(scaled)[:, upper])
    assert np.array_equal(found.noisy, mixture.predict(scaled) == upper)
    three = GaussianMixture(3, random_state=0).fit(scaled)
    noisy = three.predict(scaled) == three.means_.sum(1).argmax()
    assert rates is TWO_KINDS or not np.array_equal(found.noisy, noisy)  # two groups, not three


def test_the_posterior_ranks_clients_by_rate_better_than_the_published_recipe():
    cases = [profiles(GRID, seed=seed, alpha=0.5) for seed in range(10)]
    truth = np.median(GRID) < GRID
    ours, published = (
        np.mean([roc_auc_score(truth, detect(detector, *case).posterior) for case in cases])
        for detector in (Robust(), Official())
    )
    assert ours > 0.97
    assert ours > published + 0.1
