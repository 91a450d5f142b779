"""Server optimizers: limit cases, chosen numbers, what they remember, and what one liar achieves."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.aggregators import AGGREGATORS
from strategies.gram import Doubles, Vector
from strategies.robust import RobustStrategy
from strategies.server_optimizers import (
    SERVER_OPTIMIZERS,
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedExP,
    FedYogi,
    ServerOptimizer,
    SoftThreshold,
)
from tasks.plugins import PluginError
from tests.unit.server_app.storage.test_strategy_state import through_a_file

NAMES = [entry.name for entry in SERVER_OPTIMIZERS.entries()]
ONES = np.ones(4)


def rounds(count: int, dtype: type = np.float64) -> list[Vector]:
    """One combined update (50,) for each round."""
    rng = np.random.default_rng(0)
    return [(0.01 * rng.standard_normal(50)).astype(dtype) for _ in range(count)]


def steps(optimizer: ServerOptimizer, updates: list[Vector]) -> list[Vector]:
    return [optimizer.apply(update, ONES, None, False) for update in updates]


def extrapolated(squared_norms: list[float], weights: list[float] | None, robust: bool) -> float:
    """FedExP's factor for a combined update of squared norm 1."""
    norms, shares = np.array(squared_norms), None if weights is None else np.array(weights)
    return float(FedExP(epsilon=1e-12).apply(np.ones(1), norms, shares, robust)[0])


def test_built_in_steps_are_listed_with_their_papers() -> None:
    assert NAMES == ["fedadagrad", "fedadam", "fedavgm", "fedexp", "fedyogi", "soft-threshold"]
    assert all(entry.paper and entry.summary for entry in SERVER_OPTIMIZERS.entries())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_stays_and_the_update_is_left_alone(name: str, dtype: type) -> None:
    updates = rounds(3, dtype)
    copies = copy.deepcopy(updates)
    optimizer = SERVER_OPTIMIZERS.build(name)
    for taken in steps(optimizer, updates):
        assert (taken.dtype, taken.shape) == (dtype, (50,))
        np.add(taken, 1, out=taken)  # a caller may use its memory
    np.testing.assert_array_equal(updates, copies)
    expected = steps(SERVER_OPTIMIZERS.build(name), rounds(4, dtype))[3]
    np.testing.assert_array_equal(optimizer.apply(rounds(4, dtype)[3], ONES, None, False), expected)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_moves_where_no_update_moves(name: str) -> None:
    for taken in steps(SERVER_OPTIMIZERS.build(name), [np.zeros(50)] * 3):
        np.testing.assert_array_equal(taken, np.zeros(50))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_step_remembers_is_in_plain_attributes(name: str) -> None:
    updates = rounds(6)
    whole, first, second = (SERVER_OPTIMIZERS.build(name) for _ in range(3))
    assert all(value is None or isinstance(value, int | float) for value in vars(first).values())
    expected = steps(whole, updates)
    steps(first, updates[:3])
    for key, value in vars(first).items():
        assert isinstance(value, int | float | np.ndarray)
        setattr(second, key, copy.deepcopy(value))
    np.testing.assert_array_equal(steps(second, updates[3:]), expected[3:])


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_no_server_momentum_is_the_update_times_the_rate(rate: float) -> None:
    updates = rounds(4)
    np.testing.assert_array_equal(steps(FedAvgM(rate, 0.0), updates), rate * np.array(updates))


def test_server_momentum_in_numbers() -> None:
    taken = steps(FedAvgM(server_learning_rate=2.0, server_momentum=0.5), [np.array([8.0]), np.zeros(1), np.ones(1)])
    np.testing.assert_array_equal(np.ravel(taken), [16.0, 8.0, 6.0])


def test_a_lasting_direction_gets_as_far_as_the_momentum_says() -> None:
    assert steps(FedAvgM(server_momentum=0.9), [np.ones(1)] * 300)[-1] == pytest.approx(10.0)


@pytest.mark.parametrize(
    "optimizer", [FedAdam(0.1, 0.0, 0.0, 1e-9), FedYogi(0.1, 0.0, 0.0, 1e-9), FedAdagrad(0.1, 1e-9)]
)
def test_the_first_step_without_memory_is_the_sign_times_the_rate(optimizer: ServerOptimizer) -> None:
    (update,) = rounds(1)
    np.testing.assert_allclose(optimizer.apply(update, ONES, None, False), 0.1 * np.sign(update), rtol=1e-4)


@pytest.mark.parametrize(
    "optimizer", [FedAdam(1e9, 0.0, 0.0, 1e9), FedYogi(1e9, 0.0, 0.99, 1e9), FedAdagrad(eta=1e9, tau=1e9)]
)
def test_a_floor_and_rate_large_and_equal_are_plain_averaging(optimizer: ServerOptimizer) -> None:
    updates = rounds(4)
    np.testing.assert_allclose(steps(optimizer, updates), updates, rtol=1e-9)


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
def test_small_coordinates_go_about_as_far_as_large_ones(name: str) -> None:
    update = np.array([1.0, 1e-3])
    large, small = steps(SERVER_OPTIMIZERS.build(name, "tau = 1e-9"), [update] * 5)[-1]
    assert small == pytest.approx(large, rel=1e-4)


def test_yogi_forgets_a_large_update_slowly_and_adam_fast() -> None:
    updates = [np.full(1, 100.0)] + [np.full(1, 0.1)] * 500
    adam, yogi = FedAdam(beta_2=0.9), FedYogi(beta_2=0.9)
    for optimizer in (adam, yogi):
        steps(optimizer, updates)
    assert adam.second_moment == pytest.approx(0.01)
    assert yogi.second_moment == pytest.approx(1000 - 500 * 0.001)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_orthogonal_updates_are_extrapolated_by_half_their_number(n: int) -> None:
    matrix = np.eye(n)
    optimizer = FedExP(epsilon=1e-12)
    taken = optimizer.apply(matrix.mean(axis=0), np.ones(n), np.full(n, 1 / n), False)
    np.testing.assert_allclose(taken, max(1, n / 2) * matrix.mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("weights", [None, [0.2] * 5])
def test_equal_updates_are_not_extrapolated(robust: bool, weights: list[float] | None) -> None:
    assert extrapolated([1.0] * 5, weights, robust) == 1


def test_soft_thresholding_minimises_half_the_squared_distance_plus_the_l1_norm() -> None:
    update, weight = np.array([-0.3, -0.1, -0.02, 0.0, 0.05, 0.1, 0.4]), 0.1
    (taken,) = steps(SoftThreshold(weight), [update])
    np.testing.assert_allclose(taken, [-0.2, 0, 0, 0, 0, 0, 0.3], atol=1e-15)
    grid = np.linspace(-0.5, 0.5, 100_001)
    for value, found in zip(update, taken, strict=True):  # an independent search for the minimum
        least = grid[np.argmin((grid - value) ** 2 / 2 + weight * np.abs(grid))]
        assert found == pytest.approx(least, abs=1.1e-5)


def test_a_threshold_of_0_is_plain_averaging() -> None:
    for update in rounds(3):
        np.testing.assert_array_equal(SoftThreshold(0.0).apply(update, ONES, None, False), update)


def test_a_large_epsilon_means_no_extrapolation() -> None:
    (update,) = rounds(1)
    np.testing.assert_array_equal(FedExP(1e12).apply(update, 1e6 * ONES, ONES / 4, False), update)


@pytest.mark.parametrize(
    ("weights", "robust", "expected"),
    [
        ([0.25, 0.25, 0.25, 0.25], False, 8.5),  # mean 17
        ([0.5, 0.5, 0.0, 0.0], False, 1.5),  # mean 3
        ([0.5, 0.5, 0.0, 0.0], True, 3.0),  # median 6
        (None, False, 3.0),
        (None, True, 3.0),
    ],
)
def test_the_typical_norm_in_numbers(weights: list[float] | None, robust: bool, expected: float) -> None:
    assert extrapolated([2.0, 4.0, 8.0, 54.0], weights, robust) == pytest.approx(expected)


@pytest.mark.parametrize(("weights", "robust"), [([0.2] * 5, True), (None, True), (None, False)])
def test_one_liar_cannot_set_the_step_behind_a_robust_aggregator(weights: list[float] | None, robust: bool) -> None:
    assert extrapolated([3.0, 4.0, 5.0, 6.0, 1e24], weights, robust) == pytest.approx(2.5)
    assert extrapolated([3.0, 4.0, 5.0, 6.0, 1e24], [0.2] * 5, robust=False) > 1e22


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("fedavgm", "server_momentum = 1.0", "server_momentum must be at least 0 and below 1, got 1.0"),
        ("fedavgm", "server_learning_rate = 0", "server_learning_rate must be positive, got 0"),
        ("fedadam", "beta_1 = -0.1", "beta_1 must be at least 0 and below 1, got -0.1"),
        ("fedyogi", "beta_2 = 1", "beta_2 must be at least 0 and below 1, got 1"),
        ("fedadagrad", "tau = 0.0", "tau must be positive, got 0.0"),
        ("fedadagrad", "eta = nan", "eta must be positive, got nan"),
        ("soft-threshold", "threshold = -1", "threshold must be at least 0, got -1"),
        ("fedexp", "epsilon = inf", "epsilon must be positive, got inf"),
        ("fedadagrad", "beta_1 = 0.9", "its arguments: eta, tau"),
        ("fedavgm", "momentum = 0.5", "its arguments: server_learning_rate, server_momentum"),
        ("fedadm", "", "did you mean 'fedadam'"),
        ("collections:OrderedDict", "", r"expected a subclass of .*ServerOptimizer, got the class OrderedDict"),
    ],
)
def test_choice_that_does_not_fit_is_named(name: str, args: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        SERVER_OPTIMIZERS.build(name, args)


class Halved(ServerOptimizer):
    """A step of one's own."""

    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        """Return half of the update."""
        return update / 2


def test_a_step_of_ones_own_by_import_path() -> None:
    optimizer = SERVER_OPTIMIZERS.build(f"{__name__}:Halved")
    np.testing.assert_array_equal(optimizer.apply(np.full(3, 4.0), ONES, None, False), np.full(3, 2.0))


@dataclass(frozen=True)
class Frozen(ServerOptimizer):
    factor: float = 1.0

    def apply(self, update: Any, *others: Any) -> Any:
        return self.factor * update


@dataclass(eq=False, slots=True)
class Slotted(ServerOptimizer):
    seen: int = 0

    def apply(self, update: Any, *others: Any) -> Any:
        self.seen += 1
        return update / self.seen


@pytest.mark.parametrize("kind", [*(entry.name for entry in SERVER_OPTIMIZERS.entries()), Frozen, Slotted])
def test_a_server_optimizer_goes_on_as_if_nothing_had_happened(kind: Any, tmp_path: Path):
    def strategy() -> RobustStrategy:
        optimizer = kind() if isinstance(kind, type) else SERVER_OPTIMIZERS.build(kind)
        return RobustStrategy(AGGREGATORS.build("mean"), server_optimizer=optimizer)

    def steps(one: RobustStrategy, rounds: range) -> list[bytes]:
        update = np.linspace(-1, 1, 5, dtype=np.float32)
        return [one.server_optimizer.apply(update * r, np.ones(2), None, False).tobytes() for r in rounds]  # type: ignore[union-attr]

    whole, half, fresh = strategy(), strategy(), strategy()
    through_a_file(strategy(), fresh, tmp_path)  # before the first round there is nothing to remember
    assert steps(half, range(1, 3)) == steps(whole, range(1, 3))
    through_a_file(half, fresh, tmp_path)
    assert steps(fresh, range(3, 6)) == steps(whole, range(3, 6))
