"""What a round costs against the number of clients, of parameters and of examples: CPU seconds, and slopes.

    python -m benchmarks.scaling --output scaling.csv

Rounds of the product in this process, without packing messages: ``clients`` is what all clients of a round take
together, ``server`` the rest, aggregation above all. One of the three numbers grows, the others stay; a slope is that
of a straight line through the logarithms: 1 is in proportion, 0 no growth, 2 fourfold for twice as much. Examples are
made, and the network is one hidden layer of as many units as the parameters allow. CPU time counts, not the clock, and
the least of some rounds, so that other work on the machine matters little.
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch

from benchmarks.in_process import Federation
from benchmarks.ledger import positive
from server_app.cli.config import path_argument
from tasks.base import Examples
from tasks.config import Flat, parse
from tasks.images import ImageTask
from tasks.seeds import rng
from tasks.settings import Settings

INPUTS, CLASSES = 64, 10
VALUES: Mapping[str, tuple[int, ...]] = {
    "clients": (5, 10, 20, 40),
    "parameters": (10_000, 40_000, 160_000, 640_000),
    "examples": (64, 256, 1024, 4096),
}
BASE = {"clients": 10, "parameters": 10_000, "examples": 64}


class Dots(ImageTask):
    """Made images of 8 x 8 pixels whose brightness tells the class."""

    class_names = tuple("0123456789")
    default_model = "mlp"
    input_shape = (1, 8, 8)
    mean, std, brightest = (0.5,), (0.25,), 255

    def __init__(self, count: int) -> None:
        labels = np.arange(count) % CLASSES
        images = 25 * labels[:, None, None, None] + rng(1, "dots").integers(0, 25, (count, *self.input_shape))
        self._examples = Examples(torch.from_numpy(images.astype(np.uint8)), labels)

    def train_examples(self) -> Examples:
        """Return all of them."""
        return self._examples

    def test_examples(self) -> Examples:
        """Return the first ones: a run needs some."""
        return self._examples.take(np.arange(CLASSES))


@dataclass(frozen=True)
class Row:
    """CPU seconds of a round, of all clients and of the rest, where ``grows`` has one of its values."""

    aggregator: str
    grows: str
    clients: int
    parameters: int
    examples: int
    client_seconds: float
    server_seconds: float


def settings_of(aggregator: str, clients: int, parameters: int, examples: int, rounds: int) -> Settings:
    """Return the settings of a run in which all ``clients`` train an epoch on ``examples`` each, batch 64."""
    keys: Flat = {
        **{"task.name": "benchmarks.scaling:Dots", "task.args": f"count = {clients * examples}"},
        **{"model.name": "mlp", "model.args": f"hidden = {hidden(parameters)}"},
        **{"partition.name": "iid", "partition.args": "", "noise.name": "none"},
        **{"federation.num-clients": clients, "federation.fraction-train": 1.0, "num-server-rounds": rounds},
        **{"train.epochs": 1, "train.batch-size": 64, "train.learning-rate": 0.01, "train.device": "cpu"},
        **{"train.threads": 1, "strategy.aggregator": aggregator, "evaluate.every": 1000, "evaluate.validation": 0.0},
    }
    return parse(keys)


def hidden(parameters: int) -> int:
    """Return how many hidden units make a network of so many parameters, about.

    >>> hidden(10_000)
    133
    """
    return max(1, round((parameters - CLASSES) / (INPUTS + 1 + CLASSES)))


def round_seconds(settings: Settings) -> tuple[float, float]:
    """Return the least CPU seconds of the clients and of the rest over the rounds; the first one is not counted."""
    federation, training = Federation(settings), [0.0]
    inner = federation.clients.send_and_receive

    def send_and_receive(messages: Iterable[object], *, timeout: float | None = None) -> object:
        started = time.process_time()
        replies = inner(messages, timeout=timeout)  # type: ignore[arg-type]
        training[0] += time.process_time() - started
        return replies

    federation.clients.send_and_receive = send_and_receive  # type: ignore[assignment, method-assign]
    found = []
    started, rounds = time.process_time(), federation.rounds(first_measured=settings.num_server_rounds + 1)
    for _ in rounds:
        found.append((training[0], time.process_time() - started - training[0]))
        training[0], started = 0.0, time.process_time()
    clients, server = zip(*found[1:], strict=True)
    return min(clients), min(server)


def measure(aggregator: str, grows: str, values: Iterable[int], rounds: int) -> Iterator[Row]:
    """Yield the costs where one number has these values and the others are those of ``BASE``."""
    for value in values:
        sizes = BASE | {grows: value}
        yield Row(aggregator, grows, **sizes, **_named(*round_seconds(settings_of(aggregator, **sizes, rounds=rounds))))


def _named(clients: float, server: float) -> dict[str, float]:
    return {"client_seconds": clients, "server_seconds": server}


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the slope of the least-squares line through the logarithms.

    >>> round(slope([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def table(rows: Sequence[Row]) -> str:
    """Return a line for each aggregator and growing number: what a round costs at each value, and the slopes."""
    lines = ["| aggregator | grows | values | clients CPU ms | slope | server CPU ms | slope |"]
    lines.append("|---|---|---|---|--:|---|--:|")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.aggregator, row.grows), []).append(row)
    for (aggregator, grows), members in groups.items():
        sizes = [getattr(row, grows) for row in members]
        cells = [", ".join(map(str, sizes))]
        for part in ("client_seconds", "server_seconds"):
            seconds = [getattr(row, part) for row in members]
            cells.append(", ".join(f"{1e3 * each:.3g}" for each in seconds))
            cells.append(f"{slope(sizes, seconds):.2f}" if len(sizes) > 1 else "-")
        lines.append(f"| {aggregator} | {grows} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write all rows if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aggregators", nargs="+", default=["mean", "geometric-median"])
    parser.add_argument("--grows", nargs="+", choices=VALUES, default=[*VALUES])
    parser.add_argument("--values", nargs="+", type=positive, help="in place of the built-in ones; for one --grows")
    parser.add_argument("--rounds", type=positive, default=4, help="of each size, after one that warms up")
    parser.add_argument("--output", type=path_argument, help="CSV file of all sizes")
    args = parser.parse_args(sys.argv[1:])
    if args.values and len(args.grows) > 1:
        parser.error("--values are those of one number: name it with --grows")
    torch.set_num_threads(1)
    rows: list[Row] = []
    for aggregator in args.aggregators:
        for grows in args.grows:
            rows += measure(aggregator, grows, args.values or VALUES[grows], args.rounds + 1)
            if args.output:
                write_csv(args.output, rows)
    print(table(rows))


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write one line per size, with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


if __name__ == "__main__":
    main()
