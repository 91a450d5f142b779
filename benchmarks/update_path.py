"""The way of one update at the server, from the bytes that came to its step: views against a file for each tensor.

    python -m benchmarks.update_path --megabytes 45 --tensors 60

Both ways run in turn in this process, with the product's own checks; only the record of named arrays differs.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from strategies.aggregators import GeometricMedian
from strategies.robust import RobustStrategy
from strategies.validation import ReplyValidator, to_record
from tasks import protocol
from tasks.protocol import ARRAYS
from tasks.records import byte_array, view_of, view_record

Make = Callable[[protocol.Arrays], ArrayRecord]
WAYS: dict[str, Make] = {"a file for each tensor": to_record, "views": view_record}


class OneClient:
    """As much of a grid as sampling needs."""

    def get_node_ids(self) -> list[int]:
        """Return the one client."""
        return [0]


def seconds(make: Make, came: Array, layout: str, model: protocol.Arrays) -> float:
    """Return how long it takes to name the arrays of a reply, to check them and to make the step."""
    strategy, grid = RobustStrategy(GeometricMedian()), OneClient()
    messages = [*strategy.configure_train(1, view_record(model), ConfigRecord(), grid)]  # type: ignore[arg-type]
    started = time.perf_counter()
    named = make(protocol.named_views(view_of(came), layout))
    content = RecordDict({"arrays": named, "metrics": MetricRecord({"num-examples": 10})})
    updates, _ = ReplyValidator(model, messages).screen([Message(content, reply_to=messages[0])], strategy.keep)
    assert len(updates) == 1, "the reply was set aside"
    return time.perf_counter() - started


def measure(megabytes: float, tensors: int, repeats: int) -> dict[str, float]:
    """Return the least seconds of each way, which are played in turn."""
    for name in ("task_id", "run_id", "node_id"):
        setattr(TaskIdentity, name, 1)  # what Flower's own start-up would set
    values = np.random.default_rng(0).random(int(megabytes * 250_000), np.float32)
    model: protocol.Arrays = {f"layer{i}": part for i, part in enumerate(np.array_split(values, tensors))}
    flat, layout = protocol.pack({name: array + np.float32(0.1) for name, array in model.items()})
    came = ArrayRecord({ARRAYS: byte_array(flat)})[ARRAYS]
    found = [{way: seconds(make, came, layout, model) for way, make in WAYS.items()} for _ in range(repeats)]
    return {way: min(times[way] for times in found) for way in WAYS}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=float, default=45)
    parser.add_argument("--tensors", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    found = measure(args.megabytes, args.tensors, args.repeats)
    print("\n".join(f"{way}: {1e3 * taken:.1f} ms" for way, taken in found.items()))
    slow, fast = found.values()
    print(f"ratio {slow / fast:.1f}")


if __name__ == "__main__":
    main()
