from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from flwr.app import ConfigRecord

from server_app.privacy import noise_multiplier, spent_epsilon
from server_app.storage.strategy_state import restore_strategy, strategy_state
from server_app.strategy import build_strategy
from server_app.validation.config import check
from strategies.aggregators import AGGREGATORS
from strategies.privacy import PrivateStrategy, next_norm, wrap
from strategies.robust import RobustStrategy
from strategies.validation import to_numpy
from tasks.config import ConfigError
from tasks.protocol import Mode
from tasks.settings import PrivacySettings
from tests.issues import warning_lines
from tests.messages import answer, record
from tests.unit.strategies.test_robust import Clients

SIZE = 100_000
START = {"w": np.full(SIZE, 0.5, np.float32)}
PRIVATE = {"strategy.aggregator": "mean", "strategy.weighting": "uniform", "privacy.mode": "server-fixed"}
Number = float | int | str


def strategy(seed: int = 0, clients: int = 4, **changes: Number) -> PrivateStrategy:
    settings = PrivacySettings(**{"mode": "server-fixed", "clipping_norm": 1.0, **changes})
    averaging = RobustStrategy(AGGREGATORS.build("mean", ""), weighting="uniform")
    return PrivateStrategy(averaging, settings, clients, lambda server_round: np.random.seed(seed + server_round))


def play_round(private: PrivateStrategy, updates: list[np.ndarray], clients: int = 4) -> np.ndarray:
    """What one round adds to the model."""
    list(private.configure_train(1, record(START), ConfigRecord(), Clients(clients)))
    replies = [answer(i, {"w": START["w"] + update.astype(np.float32)}) for i, update in enumerate(updates)]
    for reply in replies:
        reply.content["metrics"]["norm_bit"] = 1
    arrays, _ = private.aggregate_train(1, replies)
    assert arrays is not None
    added: np.ndarray = to_numpy(arrays)["w"].astype(float) - START["w"]
    return added


def vectors(norms: list[float]) -> list[np.ndarray]:
    """Updates of these norms in random directions."""
    draws = [np.random.default_rng(i).standard_normal(SIZE) for i in range(len(norms))]
    return [norm * draw / np.linalg.norm(draw) for norm, draw in zip(norms, draws, strict=True)]


def test_each_update_is_clipped_alone_before_the_mean():
    updates = vectors([0.5, 1.0, 3.0, 100.0])
    expected = np.mean([u * min(1, 1 / np.linalg.norm(u)) for u in updates], axis=0)
    np.testing.assert_allclose(play_round(strategy(noise_multiplier=0.0), updates), expected, atol=1e-6)


@pytest.mark.parametrize("usable", [4, 2])
@pytest.mark.parametrize("mode", ["server-fixed", "server-adaptive", "client-fixed", "client-adaptive"])
def test_the_noise_is_made_for_the_updates_that_are_averaged(mode: str, usable: int):
    """Standard deviation z C / n with n replies, also when more clients were asked; the count takes its part of z."""
    updates = vectors([0.5] * usable)
    count_stddev = 4.0
    private = strategy(mode=mode, noise_multiplier=2.0, count_stddev=count_stddev)
    noise = play_round(private, updates) - np.mean(updates, axis=0)
    z = (2.0**-2 - (2 * count_stddev) ** -2) ** -0.5 if "adaptive" in mode else 2.0
    assert noise.std() == pytest.approx(z * 1.0 / usable, rel=0.015)
    assert noise.mean() == pytest.approx(0, abs=5 * noise.std() / np.sqrt(SIZE))


def test_adaptive_noise_belongs_to_the_norm_at_which_was_clipped_and_the_next_norm_to_the_next_round():
    private = strategy(mode="server-adaptive", noise_multiplier=1e-3, count_stddev=1e-2, clipping_rate=1.0)
    z = (1e-3**-2 - (2 * 1e-2) ** -2) ** -0.5
    updates = vectors([9.0] * 4)
    noise = play_round(private, updates) - np.mean(updates, axis=0) / 9
    assert noise.std() == pytest.approx(z * 1.0 / 4, rel=0.02)
    assert private.mechanism.wrapper.clipping_norm == 1.0
    assert private.mechanism.clipping_norm == pytest.approx(np.exp(0.5), rel=0.02)  # no update lay below 1


@pytest.mark.parametrize("quantile", [0.3, 0.5, 0.8])
def test_adaptive_clipping_finds_the_quantile_of_the_update_norms(quantile: float):
    """Andrew et al. (NeurIPS 2021): C converges to the quantile; here of the norms 1.00, 1.01, ..., 1.99."""
    private = strategy(mode="client-adaptive", noise_multiplier=0.0, quantile=quantile, clipping_norm=0.1)
    wrapper = private.mechanism.wrapper
    norms = 1 + np.arange(100) / 100
    for _ in range(300):
        wrapper._geometric_update(float(np.mean(norms > wrapper.clipping_norm)))
        wrapper.clipping_norm = next_norm(wrapper)
    assert wrapper.clipping_norm == pytest.approx(1 + quantile, abs=0.02)


def test_a_reply_that_does_not_say_whether_it_was_clipped_is_set_aside():
    private = strategy(clients=2, mode="client-adaptive", noise_multiplier=0.0)
    list(private.configure_train(1, record(START), ConfigRecord(), Clients(2)))
    replies = [answer(i, {"w": START["w"] + vectors([0.5])[0].astype(np.float32)}) for i in range(2)]
    replies[0].content["metrics"]["norm_bit"] = 1
    arrays, _ = private.aggregate_train(1, replies)
    assert arrays is not None
    assert private.report.quarantined == {1: "norm_bit is missing: whether the update had to be clipped"}


def test_the_state_that_a_resumed_run_needs_is_the_norm_and_the_releases():
    private = strategy(mode="server-adaptive", noise_multiplier=1e-3, count_stddev=1e-2)
    play_round(private, vectors([9.0] * 4))
    play_round(private, vectors([9.0] * 4))
    fresh = strategy(mode="server-adaptive", noise_multiplier=1e-3, count_stddev=1e-2)
    restore_strategy(fresh.inner, *strategy_state(private.inner))
    assert fresh.mechanism.releases == 2
    assert fresh.mechanism.clipping_norm == private.mechanism.clipping_norm != 1.0
    np.testing.assert_array_equal(*[play_round(each, vectors([9.0] * 4)) for each in (fresh, private)])


@pytest.mark.parametrize("mode", Mode)
def test_the_noise_of_a_real_federation_cannot_be_predicted_and_that_of_a_simulation_can(mode: Mode):
    def noise() -> np.ndarray:
        np.random.seed(1)
        private = build_strategy(check({**PRIVATE, "federation.num-clients": 4}), mode=mode)
        assert isinstance(private, PrivateStrategy)
        return play_round(private, vectors([9.0] * 4))

    assert np.array_equal(noise(), noise()) == (mode is Mode.SIMULATION)


def test_the_report_has_the_weight_of_every_client():
    private = strategy()
    play_round(private, vectors([9.0] * 4))
    assert private.report.weights == dict.fromkeys(range(4), 0.25)
    assert private.report.distances.keys() == set(range(4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy.aggregator": "geometric-median"}, "strategy.aggregator = 'mean'"),
        ({"strategy.weighting": "examples"}, "strategy.weighting = 'uniform'"),
        ({"strategy.name": "flower-fedavg"}, "strategy.name = 'robust'"),
        ({"strategy.server-optimizer": "fedadam"}, "strategy.server-optimizer = 'none'"),
        ({"run.checkpoint-every": 2}, "run.checkpoint-every = 1"),
        ({"privacy.mode": "server-adaptive"}, "must be below 2, twice privacy.count-stddev (now 1)"),
        ({"model.name": "resnet18"}, "would miss stem.1.running_mean"),
        ({"privacy.mode": "local", "model.name": "resnet18"}, "model.args = 'norm = \"group\"'"),
        ({"privacy.delta": 0.5}, "at most 0.1"),
    ],
)
def test_a_setting_that_breaks_the_guarantee_is_refused(changes: dict[str, Number], message: str):
    with pytest.raises(ConfigError) as caught:
        check({**PRIVATE, "privacy.noise-multiplier": 2.0, **changes})
    assert message in str(caught.value)
    assert len(caught.value.errors) == 1


def test_local_privacy_goes_with_any_aggregator_and_groups_replace_running_statistics():
    assert check({"privacy.mode": "local"}).strategy.aggregator == "geometric-median"
    check({**PRIVATE, "model.name": "resnet18", "model.args": 'norm = "group"'})


def test_warnings_name_what_does_nothing_and_what_means_little():
    assert warning_lines({"privacy.quantile": 0.3}) == [
        "privacy.quantile has no effect: there is no privacy",
    ]
    assert warning_lines({**PRIVATE, "privacy.epsilon": 0.5}) == [
        "privacy.epsilon has no effect: privacy.mode is server-fixed"
    ]
    assert "nothing is private" in warning_lines({**PRIVATE, "privacy.noise-multiplier": 0.0})[0]
    assert "holds up to 1" in warning_lines({"privacy.mode": "local", "privacy.epsilon": 8.0})[0]


def test_too_much_noise_for_the_count_is_refused_with_the_key_to_change():
    averaging = RobustStrategy(AGGREGATORS.build("mean", ""))
    with pytest.raises(ValueError, match=r"below 0\.4, twice privacy\.count-stddev \(now 0\.2\)"):
        wrap(averaging, PrivacySettings("client-adaptive", noise_multiplier=0.4), clients=4)


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Delta of a Gaussian mechanism at epsilon, exactly (Balle and Wang, ICML 2018)."""
    from scipy.stats import norm

    return float(norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))


def renyi_epsilon(mu: float, delta: float) -> float:
    """The bound by Renyi divergences alpha mu^2 / 2, best over alpha (Canonne, Kamath, Steinke, NeurIPS 2020)."""
    alpha = 1 + np.geomspace(1e-3, 1e4, 200_000)
    bound: Callable[[np.ndarray], np.ndarray] = lambda a: a * mu**2 / 2 + np.log1p(-1 / a) - np.log(delta * a) / (a - 1)
    return float(bound(alpha).min())


@pytest.mark.parametrize("noise", [0.7, 1.0, 5.0])
@pytest.mark.parametrize("releases", [1, 20, 300])
def test_accounted_epsilon_is_the_renyi_bound_and_never_below_the_exact_value(noise: float, releases: int):
    pytest.importorskip("dp_accounting")
    privacy = PrivacySettings("server-fixed", noise_multiplier=noise, delta=1e-5)
    epsilon, mu = spent_epsilon(privacy, releases), np.sqrt(releases) / noise
    assert epsilon == pytest.approx(renyi_epsilon(mu, 1e-5), rel=0.01)
    assert gaussian_delta(epsilon, mu) <= 1e-5


def test_accounted_epsilon_of_one_local_reply_is_at_most_the_stated_one():
    """Flower's formula is a bound up to epsilon 1 (Dwork and Roth 2014, theorem A.1), and none far above."""
    pytest.importorskip("dp_accounting")
    for epsilon in (0.1, 0.5, 1.0):
        privacy = PrivacySettings("local", epsilon=epsilon, delta=1e-5)
        assert noise_multiplier(privacy) == pytest.approx(np.sqrt(2 * np.log(1.25e5)) / epsilon)
        assert spent_epsilon(privacy, 1) <= epsilon
        spent = [spent_epsilon(privacy, releases) for releases in range(5)]
        assert spent[0] == 0
        assert all(a < b for a, b in pairwise(spent))
    assert gaussian_delta(30.0, 1 / noise_multiplier(PrivacySettings("local", epsilon=30.0))) > 1e-5


def test_without_noise_there_is_no_epsilon():
    pytest.importorskip("dp_accounting")
    assert spent_epsilon(PrivacySettings("server-fixed", noise_multiplier=0.0), 3) is None
