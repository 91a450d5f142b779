import numpy as np
import pytest

from strategies.model_average import moved_average
from tasks.protocol import Arrays

SHARE = 0.8


def averages(models: list[Arrays], share: float = SHARE) -> Arrays:
    average: Arrays = {name: np.full_like(array, 100) for name, array in models[0].items()}  # random weights
    for rounds, newest in enumerate(models, 1):
        average = moved_average(average, newest, share, rounds)
    return average


def models(count: int) -> list[Arrays]:
    draws = np.random.default_rng(1).normal(size=(count, 3, 2)).astype(np.float32)
    return [{"w": draw} for draw in draws]


def test_the_weights_before_the_first_round_are_no_part_of_it() -> None:
    np.testing.assert_array_equal(averages(models(1))["w"], models(1)[0]["w"])


@pytest.mark.parametrize("count", [3, 30])
def test_each_round_weighs_what_later_ones_leave_of_it(count: int) -> None:
    rounds = np.arange(1, count + 1)
    kept = np.minimum(SHARE, (rounds - 1) / (rounds + 3))  # all weights in closed form, instead of one after the other
    weights = [(1 - kept[r]) * np.prod(kept[r + 1 :]) for r in range(count)]
    assert sum(weights) == pytest.approx(1)
    if count == 30:
        assert weights[-1] == pytest.approx(1 - SHARE)
        assert weights[-2] / weights[-1] == pytest.approx(SHARE)
    expected = sum(weight * model["w"].astype(np.float64) for weight, model in zip(weights, models(count), strict=True))
    np.testing.assert_allclose(averages(models(count))["w"], expected, rtol=1e-5, atol=1e-6)


def test_share_zero_is_the_newest_model_bit_for_bit() -> None:
    assert averages(models(7), share=0.0)["w"].tobytes() == models(7)[-1]["w"].tobytes()


def test_what_is_counted_is_not_averaged_and_every_array_keeps_its_dtype() -> None:
    rounds: list[Arrays] = [{"n": np.array(n, np.int64), "h": np.array([n], np.float16)} for n in (1, 4)]
    average = averages(rounds)
    assert average["n"] == 4
    assert average["n"].dtype == np.int64
    assert average["h"].dtype == np.float16
    assert average["h"] == pytest.approx([0.2 * 1 + 0.8 * 4], rel=1e-3)
