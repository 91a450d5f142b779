"""The aggregation benchmark: every rule has its turn, and what is measured beside it computes the same."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.aggregation import (
    GRAM,
    OURS,
    fastest,
    main,
    measure,
    ours,
    random_updates,
    rules,
    table,
    ways,
    write_csv,
)
from benchmarks.aggregation_peers import Case, peers
from strategies.aggregators import AGGREGATORS
from strategies.gram import Vector

CASE = Case(random_updates(20, 500))
# A part of the work; not yet at the median; chooses all updates at once and not one after the other; smoothed by 0.1;
# eigenvalues from one step of a power method, see test_aggregators_byzfl.
OTHER = {"scipy distances alone", "geom-median, 10 iterations", "Flower Bulyan", "ByzFL GeometricMedian", "ByzFL CAF"}


def value(result: Any) -> Vector:
    """The model in what a peer returns: an array, a list of one, or Flower's record and metrics."""
    if isinstance(result, tuple):
        result = [result[0]["w"].numpy()]
    return np.asarray(result[0] if isinstance(result, list) else result)


@pytest.mark.parametrize(
    ("rule", "peer"), [(rule, peer) for rule, members in peers(CASE).items() for peer in members if peer not in OTHER]
)
def test_a_peer_computes_what_our_rule_does(rule: str, peer: str) -> None:
    theirs = value(peers(CASE)[rule][peer]()())
    np.testing.assert_allclose(ours(CASE, rules(CASE)[rule])().value, theirs, rtol=1e-4, atol=1e-8)


def test_every_way_is_measured(tmp_path: Path) -> None:
    rows = measure(clients=5, parameters=1000, repetitions=1)
    assert {row.group for row in rows} == {entry.name for entry in AGGREGATORS.entries()}
    assert [row.ratio for row in rows if row.way == OURS] == [1] * len(AGGREGATORS.entries())
    (gram,) = (row for row in rows if row.way == GRAM)
    assert gram.grams == 1
    for row in rows:
        assert row.milliseconds > 0
        assert row.grams == row.milliseconds / gram.milliseconds
    write_csv(tmp_path / "times.csv", rows)
    with (tmp_path / "times.csv").open(newline="") as file:
        assert [float(line["ratio"]) for line in csv.DictReader(file)] == [row.ratio for row in rows]
    assert len(table(rows).splitlines()) == len(rows) + 2


@pytest.mark.parametrize("clients", [3, 4, 7])
def test_few_clients_can_be_compared(clients: int) -> None:
    assert fastest(ways(Case(random_updates(clients, 50))), 1)


def test_too_few_clients_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["aggregation", "--clients", "10", "2"])
    with pytest.raises(SystemExit):
        main()
    assert "Bulyan needs at least 3 clients, got 2" in capsys.readouterr().err


def test_the_fastest_of_several_turns_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5, 1.0, 1.2, 2.0, 2.1, 3.0, 3.4])
    cpu = iter([0.0, 0.7, 1.0, 1.1, 2.0, 2.6, 3.0, 3.3])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("time.process_time", lambda: next(cpu))
    made: list[str] = []

    def way(name: str) -> Any:
        def prepare() -> Any:
            made.append(name)
            return lambda: None

        return prepare

    best = fastest({"rule": {"a": way("a"), "b": way("b")}}, repetitions=2)
    assert made == ["a", "b", "a", "b"]
    assert best == {("rule", "a"): pytest.approx((100, 600)), ("rule", "b"): pytest.approx((200, 100))}
