"""The heat map of weights: who had which weight in which round, who was not asked, and whose reply was set aside."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_app.report import read_run
from server_app.report.weight_map import MOST_CLIENTS, MOST_ROUNDS, weight_map, weight_table
from tests.run_directories import accuracies, write_run

ROSTER: list[dict[str, Any]] = [
    {"round": 0, "client": client, "examples": 5, "noise_rate": rate}
    for client, rate in ((0, 0.5), (1, 0.0), (2, 0.25))
]


def test_rows_are_clients_and_columns_rounds(tmp_path: Path) -> None:
    lines = [
        {"round": 1, "client": 0, "weight": 0.25},
        {"round": 1, "client": 1, "weight": 0.75},
        {"round": 3, "client": 1, "weight": None, "quarantine": "NaN"},
        {"round": 3, "client": 0, "weight": 1.0},
    ]
    record = read_run(write_run(tmp_path, clients=[*ROSTER, *lines]))
    weights, aside = weight_table(list(record.client_rounds), [1, 2, 0], [1, 3])
    np.testing.assert_array_equal(weights, [[0.75, 0.0], [np.nan, np.nan], [0.25, 1.0]])
    assert aside.tolist() == [[False, True], [False, False], [False, False]]


def played(clients: int, rounds: int, **values: Any) -> list[dict[str, Any]]:
    return [{"round": r, "client": c, **values} for r in range(1, rounds + 1) for c in range(clients)]


def test_rows_are_in_order_of_wrong_labels_and_the_note_says_what_is_seen(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = [*played(3, 2, weight=0.25), {"round": 2, "client": 0, "weight": None, "quarantine": "late"}]
    chart = weight_map(read_run(write_run(tmp_path, accuracies(0.1, 0.2, 0.3), [*ROSTER, *lines])))
    assert chart is not None
    places = [chart.svg.index(f"{client} (") for client in (1, 2, 0)]
    assert places == sorted(places)
    assert "darkest: 25.0 %" in chart.note
    assert "1 time here" in chart.note
    assert "not asked" not in chart.note


def test_there_is_none_for_too_few_or_too_many_and_long_runs_are_thinned(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kinds = {"round": played(3, 1, weight=0.3), "weights": played(3, 4), "alone": played(1, 4, weight=1.0)}
    kinds["crowd"] = played(MOST_CLIENTS + 1, 2, weight=0.001)
    for name, lines in kinds.items():
        assert weight_map(read_run(write_run(tmp_path / name, clients=lines))) is None, name
    chart = weight_map(read_run(write_run(tmp_path / "long", clients=played(2, 2 * MOST_ROUNDS + 1, weight=0.5))))
    assert chart is not None
    assert "Every 3rd round is shown" in chart.note
    assert len(chart.svg) < 60_000
