"""Peak memory of one round's aggregation at the server, from the bytes of the replies to the new model.

    python -m benchmarks.aggregation_memory --clients 100 --parameters 11000000
    python -m benchmarks.aggregation_memory --clients 20 --parameters 100000000 --memory 1 --ways median

Replies are given to the grid as Flower hands them over, one byte array each. ``ratio`` is the growth of the process
beyond what it held before the replies came, over the size of the updates: 1 would be no copy at all. Every way runs in
a process of its own. FedAvg is Flower's, behind our guard. With ``--memory`` GB, as ``federation.memory``, updates
beyond that lie in a file in the working directory; without, all are in memory.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.supercore.task_identity import TaskIdentity

from server_app.transport.client_grid import ClientGrid
from strategies.aggregators import AGGREGATORS
from strategies.base import FlowerStrategyAdapter
from strategies.robust import RobustStrategy
from strategies.spool import Spool
from strategies.validation import to_record
from tasks import protocol
from tasks.protocol import ARRAYS, RECORD, MessageHeader, Mode
from tasks.records import byte_array

LAYERS = 50
UNLIMITED = 1 << 62


def robust(aggregator: str, memory: int) -> Strategy:
    """Return our strategy with an aggregator; updates beyond so many bytes lie in a file here."""
    return RobustStrategy(AGGREGATORS.build(aggregator), spool=Spool(memory, Path()))


WAYS: dict[str, Callable[[int], Strategy]] = {
    **{name: partial(robust, name) for name in ("geometric-median", "mean", "median", "krum", "bulyan")},
    "flower-fedavg": lambda _: FlowerStrategyAdapter(FedAvg(fraction_evaluate=0.0)),
}


@dataclass(frozen=True)
class Row:
    """One measured way to aggregate; bytes are those of the process."""

    way: str
    updates: int
    before: int
    peak: int
    seconds: float

    @property
    def ratio(self) -> float:
        """Growth of the process over the size of the updates."""
        return (self.peak - self.before) / self.updates


class Replies:
    """Flower's side of the grid: it answers every message with a random model, as soon as it is asked for."""

    def __init__(self, model: protocol.Arrays) -> None:
        self._model = model
        self._sent: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Number the messages."""
        self._sent = list(messages)
        for number, message in enumerate(self._sent):
            message.metadata.__dict__["_message_id"] = str(number)
        return [message.metadata.message_id for message in self._sent]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return every client's reply."""
        wanted = set(message_ids)
        return [self._answer(message) for message in self._sent if message.metadata.message_id in wanted]

    def _answer(self, message: Message) -> Message:
        rng = np.random.default_rng(message.metadata.dst_node_id)
        flat, layout = protocol.pack({name: rng.random(len(a), np.float32) for name, a in self._model.items()})
        content = RecordDict(
            {"arrays": ArrayRecord({ARRAYS: byte_array(flat)}), RECORD: ConfigRecord({"layout": layout})}
        )
        content["metrics"] = MetricRecord({"num-examples": 500, "train-loss": 1.0})
        return Message(content, reply_to=message)


def play_round(way: str, clients: int, parameters: int, memory: int = UNLIMITED) -> Row:
    """Aggregate one round in this process, with so many bytes of memory for the updates."""
    for name in ("task_id", "run_id", "node_id"):
        setattr(TaskIdentity, name, 1)  # what Flower's own start-up would set
    parts = np.array_split(np.zeros(parameters, np.float32), LAYERS)
    model: Any = {f"layer{i}": part for i, part in enumerate(parts)}
    inner: Any = Replies(model)
    grid = ClientGrid(inner, {i: 1000 + i for i in range(clients)}, MessageHeader(-1), Mode.SIMULATION, memory=memory)
    strategy = WAYS[way](memory)
    messages = strategy.configure_train(1, to_record(model), ConfigRecord(), grid)
    before = peak_bytes()
    replies = grid.send_and_receive(messages, timeout=3600)
    started = time.perf_counter()
    result, _ = strategy.aggregate_train(1, replies)
    assert result is not None, "the round was skipped"
    return Row(way, 4 * clients * parameters, before, peak_bytes(), time.perf_counter() - started)


def peak_bytes() -> int:
    """Return the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(clients: int, parameters: int, ways: Iterable[str] = WAYS, memory: int = UNLIMITED) -> list[Row]:
    """Measure every way in a fresh process."""
    rows = []
    for way in ways:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(play_round, way, clients, parameters, memory).result())
    return rows


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| way | updates MB | before MB | peak MB | ratio | seconds |", "|---|---|---|---|---|---|"]
    for row in rows:
        sizes = " | ".join(f"{size / 1e6:.0f}" for size in (row.updates, row.before, row.peak))
        lines.append(f"| {row.way} | {sizes} | {row.ratio:.2f} | {row.seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--memory", type=float, help="GB for the updates of a round")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    args = parser.parse_args()
    memory = UNLIMITED if args.memory is None else int(args.memory * 1e9)
    print(table(measure(args.clients, args.parameters, args.ways, memory)))


if __name__ == "__main__":
    main()
