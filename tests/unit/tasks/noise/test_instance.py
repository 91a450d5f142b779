"""Instance-dependent noise: the wrong class depends on the example."""

from typing import Any

import numpy as np
import pytest

from tasks.noise import NOISES, InstanceNoise, NoiseError, part_dependent_labels, realised_rate
from tasks.noise.instance import flip_probabilities, wrong_class_scores
from tasks.plugins import PluginError
from tasks.seeds import rng

LABELS = np.arange(20_000) % 5
FEATURES = np.random.default_rng(0).integers(0, 256, (20_000, 4)).astype(np.uint8)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.1, 0.4, 0.9, 0.97, 1.0])
def test_the_mean_rate_is_the_rate_even_near_the_limits(rate: float) -> None:
    noisy = InstanceNoise(num_classes=5, rate=rate)(LABELS, rng(1), features=FEATURES)
    assert abs(realised_rate(LABELS, noisy) - rate) <= 4 * np.sqrt(rate * (1 - rate) / len(LABELS)) + 1e-12


def test_the_published_law_is_off_near_the_limits() -> None:
    published = flip_probabilities(20_000, 1e-6, 0.1, 0.0, 1.0, rng(1))
    assert abs(published.mean() - 0.1 * np.sqrt(2 / np.pi)) < 0.002  # mean of a half-normal distribution


def test_equal_examples_of_a_class_share_their_wrong_class() -> None:
    # raw pixels saturate the softmax: one wrong class per example
    features = np.repeat(FEATURES[:1], 300, axis=0)
    noisy = InstanceNoise(num_classes=5, rate=0.5)(np.full(300, 2), rng(1), features=features)
    values, counts = np.unique(noisy, return_counts=True)
    assert len(values) == 2
    assert 2 in values
    assert counts.min() > 100


def test_small_features_leave_a_choice_of_wrong_classes() -> None:
    # all scores are 0: the wrong classes are equally likely
    noisy = InstanceNoise(num_classes=5, rate=0.5)(LABELS, rng(1), features=np.zeros((20_000, 4)))
    counts = np.bincount(noisy[(LABELS == 2) & (noisy != 2)], minlength=5)
    expected = counts.sum() / 4
    assert counts[2] == 0
    assert ((counts[[0, 1, 3, 4]] - expected) ** 2 / expected).sum() < 16.3  # chi-square, 3 degrees, p = 0.001


def test_scores_follow_their_definition() -> None:
    labels, features = np.array([1, 0, 1]), np.array([[0.5, -1.0], [2.0, 0.1], [0.0, 0.3]])
    maps = np.random.RandomState(4).randn(3, 2, 3).astype(np.float32)
    expected = np.zeros((3, 3))
    for i, y in enumerate(labels):
        weights = np.exp(features[i] @ maps[y])
        weights[y] = 0
        expected[i] = weights / weights.sum()
    np.testing.assert_allclose(wrong_class_scores(labels, features, 3, np.random.RandomState(4)), expected, rtol=1e-12)


def test_a_shared_seed_gives_all_clients_the_same_confusions() -> None:
    def target(client: int, shared_seed: int | None) -> Any:
        noise = InstanceNoise(num_classes=5, rate=1.0, shared_seed=shared_seed)
        return noise(LABELS[:500], rng(1, "noise", client), features=FEATURES[:500])

    assert (target(0, 7) != target(1, 7)).mean() < 0.02  # near ties between two wrong classes are drawn anew
    assert (target(0, None) != target(1, None)).mean() > 0.4
    assert (target(0, 7) != target(0, 8)).mean() > 0.4


def test_wrong_use_is_explained() -> None:
    noise = InstanceNoise(num_classes=5, rate=0.4)
    with pytest.raises(NoiseError, match="pass features"):
        noise(LABELS, rng(1))
    with pytest.raises(NoiseError, match="20000 labels but 3 examples"):
        noise(LABELS, rng(1), features=FEATURES[:3])
    with pytest.raises(NoiseError, match="numbers as features"):
        noise(LABELS[:2], rng(1), features=np.array(["a", "b"]))
    with pytest.raises(NoiseError, match="run from 0 to 4"):
        part_dependent_labels(LABELS, FEATURES, 3, 0.4, 1)
    for args, message in (
        ("std = 0.0", "std, the spread"),
        ('std = "0.1"', "std must be a number, not '0.1'"),
        ("shared_seed = -1", "shared_seed must be a whole number of at least 0"),
    ):
        with pytest.raises(PluginError, match=message):
            NOISES.build("instance", args, num_classes=5, rate=0.4)
