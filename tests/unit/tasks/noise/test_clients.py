"""The noise of one client depends on the seed and its number, not on when or where it is asked."""

import numpy as np
import pytest

from tasks.noise import FederatedNoise, PairFlip, Symmetric, chosen_noise, rate_issues, unasked_issues, uses_rates
from tasks.plugins import PluginError
from tasks.settings import NoiseSettings

LABELS = np.arange(200) % 4
FEATURES = np.arange(400, dtype=np.float64).reshape(200, 2)
IDS = np.arange(200)
MIXED = 'groups = [{clients = 1, noise = "symmetric"}, {clients = 2, noise = "pair-flip", step = -1}]'


def federation(
    seed: int = 1, noise: str = "symmetric", args: str = "", rates_args: str = "max = 0.4"
) -> FederatedNoise:
    return FederatedNoise(seed, 3, 4, noise, args, "linear", rates_args)


@pytest.mark.parametrize("noise", ["symmetric", "symmetric-all", "pair-flip", "instance"])
def test_the_order_of_clients_does_not_matter(noise: str) -> None:
    forward = [federation(noise=noise).apply(k, LABELS, FEATURES, IDS)[0] for k in (0, 1, 2)]
    backward = [federation(noise=noise).apply(k, LABELS, FEATURES, IDS)[0] for k in (2, 1, 0)]
    for one, other in zip(forward, reversed(backward), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("noise", ["symmetric", "symmetric-all", "pair-flip", "instance"])
def test_another_seed_and_another_client_have_other_noise(noise: str) -> None:
    same_rate = {"noise": noise, "rates_args": "min = 0.4, max = 0.4"}
    first = federation(1, **same_rate).apply(1, LABELS, FEATURES, IDS)[0]
    assert (first != federation(2, **same_rate).apply(1, LABELS, FEATURES, IDS)[0]).any()
    assert (first != federation(1, **same_rate).apply(2, LABELS, FEATURES, IDS)[0]).any()


def test_each_client_gets_the_rate_of_the_law() -> None:
    changed = [(federation().apply(k, LABELS, FEATURES, IDS)[0] != LABELS).sum() for k in range(3)]
    assert changed == [0, 40, 80]
    np.testing.assert_allclose(federation().rates(), [0, 0.2, 0.4])


def test_mixed_gives_each_group_its_own_noise() -> None:
    kinds = [federation(noise="mixed", args=MIXED).of(k) for k in range(3)]
    assert [type(kind) for kind in kinds] == [Symmetric, PairFlip, PairFlip]
    assert isinstance(kinds[2], PairFlip)
    assert (kinds[2].step, kinds[2].rate) == (-1, 0.4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ('groups = [{clients = 2, noise = "symmetric"}]', "hold 2 clients, but there is a client 2"),
        ("groups = [{clients = 3}]", "needs its noise"),
        ('groups = [{clients = 3, noise = "symmetric", stp = 1}]', "stp"),
        ('groups = {clients = 3, noise = "symmetric"}', "expected a list of tables"),
    ],
)
def test_wrong_groups_are_explained(args: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        federation(noise="mixed", args=args).of(2)


def test_closed_set_noise_leaves_the_examples_alone() -> None:
    given = federation().apply(2, LABELS, FEATURES, IDS)
    assert given.features is FEATURES
    assert given.replaced.size == 0
    assert (given.labels != LABELS).any()


def test_noise_that_hides_the_labels_is_told_once_for_all_clients() -> None:
    assert federation(noise="pair-flip").issues() == []
    (issue,) = federation(noise="pair-flip", rates_args="min = 0.2, max = 0.8").issues()
    assert issue.line.startswith(
        "2 of 3 clients have labels that hide the true ones. Client 1: PairFlip noise at rate 0.5:"
    )


def test_only_noises_with_a_rate_obey_the_law() -> None:
    assert uses_rates("symmetric")
    assert uses_rates("mixed")
    assert uses_rates("masks")
    assert not uses_rates("human")
    assert not uses_rates("none")


@pytest.mark.parametrize(
    ("name", "own_data", "expected"),
    [
        ("auto", False, "symmetric"),
        ("auto", True, "none"),
        ("symmetric", True, "symmetric"),
        ("pair-flip", False, "pair-flip"),
        ("none", False, "none"),
    ],
)
def test_own_data_has_no_noise_that_nobody_asked_for(name: str, own_data: bool, expected: str) -> None:
    assert chosen_noise(name, own_data) == expected


def test_rates_of_noise_that_nobody_asked_for_are_said_to_have_no_effect() -> None:
    issues = unasked_issues(NoiseSettings(rates="constant", rates_args="rate = 0.4"))
    assert [issue.key for issue in issues] == ["noise.rates", "noise.rates-args"]
    assert issues[1].line.endswith("set noise.name=symmetric, or leave it out")
    assert unasked_issues(NoiseSettings()) == []
    assert unasked_issues(NoiseSettings(name="symmetric", rates_args="max = 0.4")) == []
    assert rate_issues(NoiseSettings(rates_args="max = 0.4")) == []
