"""Speed of every aggregation rule against NumPy, SciPy, geom-median, Flower and ByzFL, in one run on this machine.

    python -m benchmarks.aggregation --clients 10 100 --parameters 1000000 --output aggregation.csv

A time is the fastest of some repetitions, in each of which every way gets its turn. ``ratio`` is the time over that of
our rule in the same group, ``grams`` the time over that of the Gram matrix alone: both can be compared between
machines. Our rules also return the distance of every client to the result, and use all cores; the others mostly do not.
``cpu`` and ``cpu_ratio`` are the same in CPU seconds of the process, all cores together, for machines that are shared.
"""

import argparse
import csv
import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks.aggregation_peers import Call, Case, Way, peers
from server_app.cli.config import path_argument
from strategies.aggregators import AGGREGATORS, Aggregator, aggregate
from strategies.gram import Vector, gram_matrix

OURS = "winnow"
GRAM = "Gram matrix alone"
TICK = 1e-3  # a millisecond's part that the CPU clock may not resolve
TENSORS = 50  # that rules which treat each tensor on its own get to see


@dataclass(frozen=True)
class Row:
    """One measured way to aggregate.

    ``ratio`` is its time over that of our rule in the same ``group``, ``grams`` over that of the Gram matrix alone;
    ``cpu`` are the milliseconds of all cores together.
    """

    clients: int
    parameters: int
    group: str
    way: str
    milliseconds: float
    ratio: float
    grams: float
    cpu: float
    cpu_ratio: float


def random_updates(clients: int, parameters: int) -> list[Vector]:
    """Return float32 updates that share a direction and differ in noise, as those of a round do."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(parameters, dtype=np.float32)
    noise = (rng.standard_normal(parameters, dtype=np.float32) for _ in range(clients))
    return [np.float32(1e-3) * (common + 2 * one) for one in noise]


def rules(case: Case) -> dict[str, Aggregator]:
    """Return every built-in rule, told to withstand as many hostile clients as its peers."""
    hostile = dict.fromkeys(["krum", "multi-krum", "trimmed-mean", "mea-med", "mda", "caf", "monna"], f"f = {case.f}")
    args = {**hostile, "bulyan": f"f = {case.f_bulyan}", "smea": f"f = {case.f_smea}"}
    return {entry.name: AGGREGATORS.build(entry.name, args.get(entry.name, "")) for entry in AGGREGATORS.entries()}


def ours(case: Case, rule: Aggregator) -> Call:
    """Return a call of our rule; half of the clients are known to be clean."""
    sizes = [len(part) for part in np.array_split(case.updates[0], TENSORS)]
    roles = ["clean" if i % 2 else "noisy" for i in range(len(case.updates))]
    return lambda: aggregate(rule, case.updates, case.client_weights, sizes=sizes, roles=roles)


def ways(case: Case) -> dict[str, dict[str, Way]]:
    """Return what is measured, by group; the first of a group is ours."""
    others = peers(case)
    groups = {name: {OURS: _same(ours(case, rule)), **others.pop(name, {})} for name, rule in rules(case).items()}
    assert not others, f"peers of no rule: {[*others]}"
    return {
        "geometric-median": groups.pop("geometric-median") | {GRAM: _same(lambda: gram_matrix(case.updates))}
    } | groups


def _same(call: Call) -> Way:
    """Return the way to a call that can be repeated as it is."""
    return lambda: call


def fastest(groups: Mapping[str, Mapping[str, Way]], repetitions: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the fewest milliseconds that each way took, on the clock and of CPU.

    A slow moment of the machine hits all ways alike.
    """
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for _ in range(repetitions):
        for group, members in groups.items():
            for way, prepare in members.items():
                call = prepare()
                start, cpu_start = time.perf_counter(), time.process_time()
                call()
                cpu, taken = 1e3 * (time.process_time() - cpu_start), 1e3 * (time.perf_counter() - start)
                before = best.get((group, way), (taken, cpu))
                best[group, way] = min(taken, before[0]), min(cpu, before[1])
    return best


def measure(clients: int, parameters: int, repetitions: int) -> list[Row]:
    """Measure every way once the data is in memory."""
    best = fastest(ways(Case(random_updates(clients, parameters))), repetitions)
    gram, _ = best["geometric-median", GRAM]
    return [
        Row(
            clients,
            parameters,
            group,
            way,
            milliseconds=taken,
            ratio=taken / best[group, OURS][0],
            grams=taken / gram,
            cpu=cpu,
            cpu_ratio=cpu / max(best[group, OURS][1], TICK),
        )
        for (group, way), (taken, cpu) in best.items()
    ]


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| clients | parameters | rule | way | ms | ratio | grams | CPU ms | CPU ratio |"]
    lines.append("|--:|--:|---|---|--:|--:|--:|--:|--:|")
    for row in rows:
        numbers = f"{row.milliseconds:.1f} | {row.ratio:.2f} | {row.grams:.2f} | {row.cpu:.1f} | {row.cpu_ratio:.2f}"
        lines.append(f"| {row.clients} | {row.parameters} | {row.group} | {row.way} | {numbers} |")
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
    parser.add_argument(
        "--output", type=path_argument, help="CSV file to write; the printed table goes beside it, as .md"
    )
    args = parser.parse_args()
    if min(args.clients) < 3:
        parser.error(f"argument --clients: Bulyan needs at least 3 clients, got {min(args.clients)}")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    about = f"numpy {np.__version__}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    rows = [row for clients in args.clients for row in measure(clients, args.parameters, args.repetitions)]
    print(f"{about}\n\n{table(rows)}")
    if args.output:
        write_csv(args.output, rows)
        args.output.with_suffix(".md").write_text(f"{about}\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
