"""What each aggregator withstands, how it says that it cannot, and what one or f liars achieve."""

import numpy as np
import pytest

from server_app.strategy import STRATEGIES
from server_app.validation.config import check
from strategies.aggregators import AGGREGATORS, MultiKrum, aggregate, build_aggregator
from tasks.config import DEFAULTS, ConfigError
from tasks.issues import RunContext
from tasks.plugins import PluginError
from tasks.settings import MethodSettings, Settings, StrategySettings

WITHSTANDS = [
    # aggregator, pre-aggregators, clients, liars among them
    ("geometric-median", "", 21, 10),
    ("median", "", 21, 10),
    ("krum", "", 21, 9),
    ("multi-krum", "", 21, 9),
    ("bulyan", "", 21, 4),
    ("trimmed-mean", "", 21, 10),
    ("mea-med", "", 21, 10),
    ("mda", "", 21, 10),
    ("smea", "", 15, 7),
    ("caf", "", 21, 10),
    ("monna", "", 21, 10),  # trusts client 0, which is honest
    ("centered-clipping", "", 21, 8),
    ("centered-clipping", "radius = 10.0", 21, 8),
    ("mean", "norm-clipping = {}", 21, 4),
    ("mean", "arc = {}", 21, 2),
    ("geometric-median", "arc = {}", 21, 10),
    ("geometric-median", "nnm = {}", 21, 10),
    ("krum", "nnm = {}", 21, 9),
    ("median", "bucketing = {}", 21, 4),
]


@pytest.mark.parametrize(("aggregator", "extra", "clients", "liars"), WITHSTANDS)
@pytest.mark.parametrize("length", [1e3, 1e12])
@pytest.mark.parametrize("together", [True, False])
def test_liars_cannot_move_the_result_far(
    aggregator: str, extra: str, clients: int, liars: int, length: float, together: bool
) -> None:
    """Honest updates lie within about 11 of their centre; the liars' mean alone would be thousands away."""
    rng = np.random.default_rng(1)
    honest = 5 + rng.standard_normal((clients - liars, 100))
    hostile = length * rng.standard_normal((1 if together else liars, 100)) * np.ones((liars, 1))
    steps, args = ("", extra) if aggregator == "centered-clipping" else (extra, "")
    result = aggregate(build_aggregator(aggregator, args, steps), [*honest, *hostile], np.ones(clients))
    assert np.linalg.norm(result.value - honest.mean(axis=0)) < 60


def test_ten_iterations_from_the_mean_withstand_far_liars_only_up_to_a_length() -> None:
    rng = np.random.default_rng(1)
    honest, direction = 5 + rng.standard_normal((15, 100)), rng.standard_normal(100)
    aggregator, distance = build_aggregator("per-tensor-geometric-median"), {}
    for length in (1e3, 1e12):
        result = aggregate(aggregator, [*honest, *[length * direction] * 6], np.ones(21))
        distance[length] = np.linalg.norm(result.value - honest.mean(axis=0))
    assert distance[1e3] < 60
    assert distance[1e12] > 1e6


@pytest.mark.parametrize(
    "steps",
    ["nnm = {}", "bucketing = {}", "norm-clipping = {}", "nnm = {}, norm-clipping = {}", "arc = {}", "arc = { f = 0 }"],
)
def test_steps_make_the_mean_robust_if_they_bound_what_a_liar_can_do(steps: str) -> None:
    rng = np.random.default_rng(3)
    aggregator = build_aggregator("mean", "", steps)
    result = aggregate(aggregator, [*rng.standard_normal((10, 50)), np.full(50, 1e12)], np.ones(11))
    assert aggregator.robust == (np.linalg.norm(result.value) < 100)
    assert build_aggregator("median", "", steps).robust


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("limit", "mean"), [(10.0, 2.0), (float("inf"), 3.0)])
def test_clipping_takes_a_model_that_came_back_unchanged_and_any_limit(limit: float, mean: float) -> None:
    updates = [np.zeros(4), np.full(4, 1.0), np.full(4, 8.0)]  # of norm 0, 2 and 16
    aggregator = build_aggregator("mean", "", f"norm-clipping = {{ limit = {limit} }}")
    np.testing.assert_allclose(aggregate(aggregator, updates, np.ones(3)).value, mean)


@pytest.mark.parametrize(("n", "m", "left_out"), [(11, None, 4), (11, 2, 9), (11, 9, 2), (11, 11, 0)])
def test_multi_krum_leaves_out_at_least_as_many_as_it_withstands(n: int, m: int | None, left_out: int) -> None:
    aggregator = MultiKrum(m=m)
    weights = aggregate(aggregator, list(np.random.default_rng(4).standard_normal((n, 20))), np.ones(n)).weights
    assert weights is not None
    assert (weights == 0).sum() == left_out >= aggregator.hostile(n)


@pytest.mark.parametrize("name", [entry.name for entry in AGGREGATORS.entries()])
@pytest.mark.filterwarnings("error")
def test_tiny_updates_beside_an_outlier_keep_their_digits(name: str) -> None:
    """Updates of 1e-5 that share a direction, and one of 1e12: float32 as clients send them, float64 as reference."""
    rng = np.random.default_rng(2)
    small = (1e-5 * (3 + rng.standard_normal((10, 500)))).astype(np.float32)
    outlier = np.full(500, 1e12, np.float32)
    aggregator = AGGREGATORS.build(name)
    single = aggregate(aggregator, [*small, outlier], np.ones(11)).value
    double = aggregate(aggregator, [*small.astype(np.float64), outlier.astype(np.float64)], np.ones(11)).value
    np.testing.assert_allclose(single, double, rtol=2e-6)
    if aggregator.robust and name != "per-tensor-geometric-median":
        assert np.linalg.norm(single) < 100 * np.linalg.norm(small.mean(axis=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"aggregator": "krum", "aggregator-args": "f = 4"},
            "krum with f = 4 needs the updates of at least 11 clients",
        ),
        (
            {"aggregator": "multi-krum", "aggregator-args": "f = 4"},
            "multi-krum with f = 4 needs the updates of at least",
        ),
        (
            {"aggregator": "multi-krum", "aggregator-args": "f = 2, m = 9"},
            "multi-krum with f = 2, m = 9 needs the updates of at least 11 clients",
        ),
        ({"aggregator": "bulyan", "aggregator-args": "f = 2"}, "bulyan with f = 2 needs the updates of at least 11"),
        ({"aggregator": "trimmed-mean", "aggregator-args": "f = 5"}, "trimmed-mean with f = 5 needs the updates of"),
        ({"aggregator": "mea-med", "aggregator-args": "f = 5"}, "mea-med with f = 5 needs the updates of at least 11"),
        ({"aggregator": "mda", "aggregator-args": "f = 5"}, "mda with f = 5 needs the updates of at least 11"),
        ({"aggregator": "smea", "aggregator-args": "f = 5"}, "smea with f = 5 needs the updates of at least 11"),
        ({"aggregator": "caf", "aggregator-args": "f = 5"}, "caf with f = 5 needs the updates of at least 11"),
        ({"pre-aggregators": "arc = { f = 5 }"}, "arc with f = 5 needs the updates of at least 11"),
        ({"pre-aggregators": "nnm = { f = 5 }"}, "nnm with f = 5 needs the updates of at least 11"),
        (
            {"aggregator": "krum", "aggregator-args": "f = 2", "pre-aggregators": "bucketing = {}"},
            "krum with f = 2 needs the updates of at least 7 clients, after bucketing with size = 2 there are 5",
        ),
    ],
)
def test_what_an_aggregator_cannot_withstand_is_said_before_the_start(changes: dict[str, str], message: str) -> None:
    flat = {**DEFAULTS, "federation.fraction-train": 0.5, **{f"strategy.{k}": v for k, v in changes.items()}}
    with pytest.raises(ConfigError, match=f"strategy: {message}"):
        check(flat)


def test_as_many_clients_as_the_aggregator_needs_are_enough() -> None:
    changes = {"federation.fraction-train": 0.55, "strategy.aggregator": "krum", "strategy.aggregator-args": "f = 4"}
    assert check({**DEFAULTS, **changes}).strategy.aggregator == "krum"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"federation.num-clients": 40, "strategy.aggregator": "smea", "strategy.aggregator-args": "f = 10"},
            "smea with f = 10 would have to look at 8.48e[+]08 subsets of 40 updates, at most 100,000: take f = 4 or",
        ),
        (
            {"federation.num-clients": 60, "strategy.aggregator": "mda", "strategy.aggregator-args": "f = 21"},
            "mda with f = 21 would search for too long: f may be at most 20",
        ),
        (
            {"strategy.aggregator": "monna", "strategy.aggregator-args": "trusted = 20"},
            "monna trusts client 20, and there are the clients 0 to 19",
        ),
        (
            {"strategy.aggregator": "monna", "federation.fraction-train": 0.5},
            "monna needs the update of client 0 in every round, and 10 of 20 clients train in one",
        ),
        (
            {
                "strategy.aggregator": "monna",
                "federation.fraction-train": 0.5,
                "strategy.pre-aggregators": "norm-clipping = {}",
            },
            "monna needs the update of client 0 in every round, and 10 of 20 clients train in one",
        ),
    ],
)
def test_what_takes_too_long_and_a_trusted_client_that_is_not_there_is_said_before_the_start(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check({**DEFAULTS, **changes})  # type: ignore[dict-item]


def test_a_bounded_f_is_named_and_is_the_largest_that_is_affordable() -> None:
    smea, mda = build_aggregator("smea"), build_aggregator("mda")
    assert smea.warning(40) == "smea withstands 4 hostile updates among 40, not 19: it looks at most at 100,000 subsets"
    assert "withstands 6 hostile updates among 21, not 10" in smea.warning(21)  # 21 choose 7 is 116,280
    assert (smea.problem(40), build_aggregator("smea", "f = 4").problem(40)) == ("", "")
    assert build_aggregator("smea", "f = 5").problem(40).startswith("smea with f = 5 would have to look at 6.58e+05")
    assert mda.warning(60) == "mda withstands 20 hostile updates among 60, not 29: f is at most 20"
    assert (smea.warning(15), mda.warning(41)) == ("", "")
    assert "withstands no hostile update" in smea.warning(2)
    one = build_aggregator("smea", "f = 1")
    assert one.problem(100_000) == ""
    assert "would have to look at 1e+05 subsets of 100001 updates, at most 100,000: take f = 0 or less" in one.problem(
        100_001
    )


@pytest.mark.parametrize("scale", [1.0, 1e-100])
def test_the_filter_ends_where_all_are_equal_or_too_small_to_tell_apart(scale: float) -> None:
    updates = list(scale * np.random.default_rng(0).standard_normal((7, 5)))
    result = aggregate(build_aggregator("caf", "f = 2"), updates, np.ones(7))
    assert np.isfinite(result.value).all()
    equal = aggregate(build_aggregator("caf", "f = 2"), [updates[0]] * 7, np.ones(7))
    np.testing.assert_allclose(equal.weights, 1 / 7, rtol=1e-12)  # type: ignore[arg-type]


def test_a_trusted_client_is_its_own_nearest_also_beside_equal_ones() -> None:
    updates = [np.array([value]) for value in (1.0, 1.0, 1.0, 1.0, 5.0)]
    result = aggregate(build_aggregator("monna", "trusted = 3, f = 2"), updates, [1, 2, 3, 4, 5])
    np.testing.assert_allclose(result.weights, [1 / 7, 2 / 7, 0, 4 / 7, 0])  # type: ignore[arg-type]


def test_each_update_is_its_own_nearest_also_beside_near_ones() -> None:
    updates = [np.array([value]) for value in (0.0, 0.1, 0.1, 0.1, 0.9)]
    mixed = aggregate(build_aggregator("mean", "", "nnm = { f = 2 }"), updates, np.ones(5))
    # the last one and the two nearest; the first one, likewise; of four equally far the first ones
    np.testing.assert_allclose(mixed.value, (0.2 / 3 + 3 * 0.1 + 1.1 / 3) / 5)


def test_noisy_clients_that_sent_what_a_clean_one_sent_count_in_full() -> None:
    updates = [np.ones(3)] * 3
    rule = build_aggregator("distance-aware")
    result = aggregate(rule, updates, [1, 2, 5], roles=["clean", "noisy", "unknown"])
    np.testing.assert_allclose(result.weights, [0.125, 0.25, 0.625])  # type: ignore[arg-type]


def test_a_chain_warns_of_its_rule_by_the_number_of_rows_that_is_left() -> None:
    chain = build_aggregator("krum", "", "bucketing = { size = 2 }")
    assert chain.warning(8) == "krum withstands no hostile update: the largest f for 4 updates is 0"
    assert chain.warning(9) == ""
    assert build_aggregator("mean", "", "nnm = {}").warning(2).startswith("nnm withstands no hostile update")


@pytest.mark.parametrize(
    ("aggregator", "strategy", "method", "said"),
    [
        ("distance-aware", "robust", "sgd", True),
        ("distance-aware", "noise-partition", "sgd", False),  # calls clients noisy
        ("distance-aware", "robust", "own.module:Method", False),  # nobody knows what a part of one's own does
        ("mean", "robust", "sgd", False),  # reads no role
    ],
)
def test_it_is_said_that_nobody_is_called_noisy(aggregator: str, strategy: str, method: str, said: bool) -> None:
    chosen = StrategySettings(strategy, aggregator=aggregator)
    settings = Settings(strategy=chosen, method=MethodSettings(method))
    context = RunContext(settings, sampled=6, strategy=STRATEGIES.find(strategy))  # type: ignore[arg-type]
    found = build_aggregator(aggregator).issues(context)
    assert [issue.key for issue in found] == ["strategy.aggregator"] * said
    assert all("is the mean: the strategy robust calls no client noisy" in issue.text for issue in found)


def test_a_round_without_the_trusted_client_is_refused() -> None:
    updates = list(np.random.default_rng(0).standard_normal((5, 3)))
    monna = build_aggregator("monna", "trusted = 7, f = 1", "norm-clipping = { limit = 1e9 }")
    result = aggregate(monna, updates, np.ones(5), clients=[1, 2, 7, 8, 9])
    farthest = int(np.argmax([np.linalg.norm(update - updates[2]) for update in updates]))
    np.testing.assert_allclose(result.value, np.delete(updates, farthest, axis=0).mean(axis=0), rtol=1e-12)
    for clients, weights in (([1, 2, 3, 8, 9], np.ones(5)), ([1, 2, 7, 8, 9], np.array([1.0, 1, 0, 1, 1]))):
        with pytest.raises(ValueError, match="monna has no update of client 7, which it trusts"):
            aggregate(monna, updates, weights, clients=clients)


@pytest.mark.parametrize(
    ("aggregator", "args", "steps", "message"),
    [
        ("krum", "f = -1", "", "f = -1: the number of hostile updates must be at least 0"),
        ("multi-krum", "m = 0", "", "m = 0: at least one update must be kept"),
        ("centered-clipping", "radius = -1.0", "", "radius = -1.0: must be at least 0"),
        ("centered-clipping", "iterations = 0", "", "iterations = 0: must be at least 1"),
        ("per-tensor-geometric-median", "iterations = 0", "", "iterations of at least 1"),
        ("distance-aware", "distance = 'cosine'", "", "distance"),
        ("distance-aware", "", "nnm = {}", "needs the update of every client on its own, but nnm mixes"),
        ("monna", "trusted = -1", "", "trusted = -1: must be the id of a client"),
        ("monna", "", "nnm = {}", "needs the update of every client on its own, but nnm mixes"),
        ("mean", "", "arc = { f = -1 }", "f = -1: the number of hostile updates must be at least 0"),
        ("mean", "", "bucketing = { size = 0 }", "size = 0: a bucket holds at least one update"),
        ("mean", "", "norm-clipping = { factor = 0.0 }", "factor > 0"),
        ("mean", "", "nnn = {}", "unknown pre-aggregator 'nnn'; did you mean 'nnm'"),
        ("mean", "", "nnm = 4", r"write its arguments as nnm = \{ ... \}, got 4"),
        ("mean", "", "nnm", "not inline TOML"),
    ],
)
def test_choice_that_does_not_fit_is_named(aggregator: str, args: str, steps: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build_aggregator(aggregator, args, steps)


def test_norm_clipping_keeps_clients_apart() -> None:
    roles = ["clean", "noisy", "noisy"]
    aggregator = build_aggregator("distance-aware", "", "norm-clipping = { limit = 1e9 }")
    updates = list(np.random.default_rng(0).standard_normal((3, 5)))
    plain = aggregate(build_aggregator("distance-aware"), updates, np.ones(3), roles=roles)
    np.testing.assert_allclose(aggregate(aggregator, updates, np.ones(3), roles=roles).value, plain.value, rtol=1e-12)
