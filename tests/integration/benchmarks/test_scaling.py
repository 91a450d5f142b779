"""Benchmark of a round's cost: what grows is what is asked for, and slopes are those of the logarithms."""

import pytest

from benchmarks import scaling
from benchmarks.scaling import BASE, Row, round_seconds, settings_of, slope, table
from client_app import local
from tasks.client_data import client_dataset
from tasks.fresh_model import fresh_model


def test_a_case_has_the_sizes_it_says() -> None:
    settings = settings_of("mean", clients=3, parameters=40_000, examples=70, rounds=2)
    assert [len(client_dataset(settings, client).data) for client in range(3)] == [70, 70, 70]
    assert sum(p.numel() for p in fresh_model(settings).parameters()) == pytest.approx(40_000, rel=0.01)


def test_all_clients_train_in_every_round_and_their_time_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[int] = []
    inner = local.to_device
    monkeypatch.setattr(local, "to_device", lambda data, device: (clients.append(data.client), inner(data, device))[1])
    times = iter([0.0, 0.0, 5.0, 6.0, 6.0, 6.0, 9.0, 11.0, 11.0, 11.0, 15.0, 16.0, 16.0])
    monkeypatch.setattr(scaling.time, "process_time", lambda: next(times))
    found = round_seconds(settings_of("mean", clients=2, parameters=1000, examples=20, rounds=3))
    assert sorted(clients) == [0, 0, 0, 1, 1, 1]
    assert found == (3.0, 1.0)  # of rounds 2 and 3; the first one, of 5 and 1 second, does not count


def test_slopes_are_found_and_shown() -> None:
    assert slope([10, 20, 80], [3.0, 6.0, 24.0]) == pytest.approx(1)
    assert slope([10, 100], [5.0, 5.0]) == pytest.approx(0)
    rows = [Row("mean", "clients", n, BASE["parameters"], BASE["examples"], 1e-3 * n, 1e-5 * n * n) for n in (10, 20)]
    assert table(rows).splitlines()[-1] == "| mean | clients | 10, 20 | 10, 20 | 1.00 | 1, 4 | 2.00 |"
