"""The detector with up to four groups: how many it finds, who is noisy, and its mixture against scikit-learn's."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from strategies.detection import Groups, detect
from strategies.detection.groups import Mixture, fit
from strategies.detection.profiles import client_levels
from strategies.gram import Doubles
from tests.detection_cases import TWO_KINDS, profiles

THREE = np.repeat([0.0, 0.3, 0.7], [10, 5, 5])
FOUR = np.repeat([0.0, 0.25, 0.5, 0.75], 6)
LOW_AND_HIGH = np.repeat([0.0, 0.15, 0.7], [8, 6, 6])


@pytest.mark.parametrize(
    ("rates", "groups", "noisy_from"),
    [(np.zeros(20), 1, 1.0), (TWO_KINDS, 2, 0.5), (THREE, 3, 0.7), (LOW_AND_HIGH, 3, 0.7), (FOUR, 4, 0.5)],
)
@pytest.mark.parametrize("seed", range(5))
def test_as_many_groups_are_found_as_there_are_and_the_upper_half_is_noisy(
    rates: np.ndarray, groups: int, noisy_from: float, seed: int
):
    found = detect(Groups(), *profiles(rates, seed=seed, alpha=100.0))
    assert found.components == groups
    assert found.noisy.tolist() == (rates >= noisy_from).tolist()
    assert found.reason.startswith(f"BIC prefers {groups} of 4 groups")


def test_the_reason_names_every_group():
    found = detect(Groups(), *profiles(THREE, alpha=100.0))
    assert "10 clients at 0.000 nats clean, 5 clients at 0." in found.reason
    assert found.reason.count("clean") == 2
    assert found.reason.count("noisy") == 1


def test_two_groups_at_most_are_the_usual_question():
    found = detect(Groups(most=2), *profiles(THREE, alpha=100.0))
    assert found.components == 2
    assert detect(Groups(most=1), *profiles(THREE, alpha=100.0)).components == 1


def test_a_group_half_way_is_clean_and_one_beyond_is_noisy():
    halves = Mixture(np.array([0.0, 1.0, 2.0]), np.full(3, 1 / 3), 0.1)
    assert halves.noisy.tolist() == [0, 0, 1]
    assert Mixture(np.array([0.0, 1.01, 2.0]), np.full(3, 1 / 3), 0.1).noisy.tolist() == [0, 1, 1]


def test_the_posterior_is_the_sum_over_the_noisy_groups():
    mixture = Mixture(np.array([0.0, 1.5, 2.0]), np.array([0.5, 0.2, 0.3]), 0.09)
    values = np.linspace(-0.5, 2.5, 13)
    densities = np.exp(-((values[:, None] - mixture.means) ** 2) / 0.18) * mixture.weights
    expected = densities[:, 1:].sum(1) / densities.sum(1)
    np.testing.assert_allclose(mixture.posterior(values) @ mixture.noisy, expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("groups", [1, 2, 3, 4])
def test_the_mixture_is_scikit_learns_where_the_least_variance_does_not_matter(groups: int, seed: int):
    draw = np.random.default_rng(seed)
    values = np.concatenate([draw.normal(mean, 0.3, 15) for mean in (0.0, 1.5, 3.0, 4.5)[:groups]])
    ours = fit(values, groups, 1e-6)
    theirs = GaussianMixture(groups, covariance_type="tied", tol=1e-10, max_iter=5000, n_init=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(values[:, None])
    order = np.argsort(theirs.means_[:, 0])
    np.testing.assert_allclose(ours.means, theirs.means_[order, 0], atol=1e-4)
    np.testing.assert_allclose(ours.weights, theirs.weights_[order], atol=1e-4)
    assert ours.variance == pytest.approx(theirs.covariances_[0, 0], abs=1e-4)
    assert ours.log_likelihood(values) == pytest.approx(theirs.score(values[:, None]) * len(values), abs=1e-4)
    assert ours.bic(values) == pytest.approx(theirs.bic(values[:, None]), abs=1e-3)


def test_the_variance_is_never_below_what_is_natural():
    values = np.array([0.0, 0.0, 1.0, 1.0])
    assert fit(values, 2, 0.01).variance == 0.01
    assert fit(values, 1, 0.01).variance == pytest.approx(0.25)


def test_few_clients_make_few_groups():
    rates = np.array([0.0, 0.3, 0.6, 0.0, 0.9])
    assert detect(Groups(), *profiles(rates, alpha=100.0)).components <= 2


def test_the_least_variance_is_what_chance_and_the_tolerance_make_of_a_group(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[int, float]] = []

    def spied(values: Doubles, groups: int, least: float) -> Mixture:
        asked.append((groups, least))
        return fit(values, groups, least)

    monkeypatch.setattr("strategies.detection.groups.fit", spied)
    losses, counts = profiles(np.zeros(20), alpha=100.0)
    _, error = client_levels(losses, counts)
    detect(Groups(most=3, tolerance=0.05), losses, counts)
    assert [groups for groups, _ in asked] == [1, 2, 3]
    assert [least for _, least in asked] == pytest.approx([(0.05 * np.log(10)) ** 2 + error**2] * 3, rel=1e-6)
    assert error > 0.03
