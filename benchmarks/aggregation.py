"""Speed of the aggregation rules against NumPy, geom-median and Flower's FedAvg, in one run on this machine.

    python -m benchmarks.aggregation --clients 10 100 --parameters 1000000 --output aggregation.csv

A time is the fastest of some repetitions. ``ratio`` is the time over that of our rule in the same group, so it can be
compared between machines. Our rules also return the distance of every client to the result; the others do not.
"""

import argparse
import csv
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from geom_median.numpy import compute_geometric_median

from strategies.aggregators import GeometricMedian, Mean, Median, Rule, aggregate
from strategies.gram import Vector, gram_matrix

Call = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One measured way to aggregate: ``ratio`` is its time over that of our rule in the same ``group``."""

    clients: int
    parameters: int
    group: str
    way: str
    milliseconds: float
    ratio: float


def random_updates(clients: int, parameters: int) -> list[Vector]:
    """Return float32 updates that share a direction and differ in noise, as those of a round do."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(parameters, dtype=np.float32)
    noise = (rng.standard_normal(parameters, dtype=np.float32) for _ in range(clients))
    return [np.float32(1e-3) * (common + 2 * one) for one in noise]


def flower_fedavg(updates: list[Vector]) -> Call:
    """Return a call of Flower's own FedAvg on replies that hold one array each."""
    replies: Any = [
        SimpleNamespace(
            content=RecordDict(
                {"arrays": ArrayRecord({"w": Array(update)}), "metrics": MetricRecord({"num-examples": 500})}
            ),
            has_error=lambda: False,
        )
        for update in updates
    ]
    return lambda: FedAvg().aggregate_train(1, replies)


def ways(updates: list[Vector]) -> dict[str, dict[str, Call]]:
    """Return what is measured, by group; the first of a group is our rule."""
    prior = np.full(len(updates), 1 / len(updates))

    def ours(rule: Rule) -> Call:
        return lambda: aggregate(rule, updates, prior)

    return {
        "mean": {
            "winnow": ours(Mean()),
            "numpy mean": lambda: np.mean(updates, axis=0),
            "flower FedAvg": flower_fedavg(updates),
        },
        "geometric median": {
            "winnow": ours(GeometricMedian()),
            "Gram matrix alone": lambda: gram_matrix(updates),
            "geom-median, 10 iterations": lambda: compute_geometric_median(updates, prior, maxiter=10),
        },
        "median": {
            "winnow": ours(Median()),
            "numpy median": lambda: np.median(updates, axis=0),
        },
    }


def milliseconds(call: Call, repetitions: int) -> float:
    """Return the fastest of some calls."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def measure(clients: int, parameters: int, repetitions: int) -> list[Row]:
    """Measure every way once the data is in memory."""
    rows = []
    for group, calls in ways(random_updates(clients, parameters)).items():
        times = {way: milliseconds(call, repetitions) for way, call in calls.items()}
        own = next(iter(times.values()))
        rows += [Row(clients, parameters, group, way, taken, taken / own) for way, taken in times.items()]
    return rows


def table(rows: Iterable[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'clients':>7} {'parameters':>10}  {'group':<17} {'way':<27} {'ms':>9} {'ratio':>7}"]
    for row in rows:
        lines.append(
            f"{row.clients:>7} {row.parameters:>10}  {row.group:<17} {row.way:<27} "
            f"{row.milliseconds:>9.1f} {row.ratio:>7.2f}"
        )
    return "\n".join(lines)


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write one line per row, with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> None:
    """Measure, print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, help="CSV file to write")
    args = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    print(f"numpy {np.__version__}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    rows = [row for clients in args.clients for row in measure(clients, args.parameters, args.repetitions)]
    print(table(rows))
    if args.output:
        write_csv(args.output, rows)


if __name__ == "__main__":
    main()
