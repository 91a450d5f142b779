"""A round holds its updates once: memory as Python and NumPy count it, on one core, so the same everywhere."""

import tracemalloc

import pytest

from benchmarks.aggregation_memory import WAYS, Row, play_round, table

CLIENTS, PARAMETERS = 100, 200_000


@pytest.mark.parametrize("way", WAYS)
def test_the_peak_of_a_round_is_the_updates_and_little_more(way: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("strategies.gram.os.cpu_count", lambda: 1)
    tracemalloc.start()
    row = play_round(way, CLIENTS, PARAMETERS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert row.updates == 4 * CLIENTS * PARAMETERS
    assert row.updates < peak < 1.5 * row.updates


def test_the_ratio_is_the_growth_over_the_size_of_the_updates():
    row = Row("mean", 100_000_000, 50_000_000, 160_000_000, 2.5)
    assert row.ratio == pytest.approx(1.1)
    assert table([row]).splitlines()[-1] == "| mean | 100 | 50 | 160 | 1.10 | 2.5 |"
