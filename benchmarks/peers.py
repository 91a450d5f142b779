"""Local training against its peers: the usual Flower app, pfl-research and a plain PyTorch loop, on this machine's CPU.

    python -m benchmarks.peers --output peers.csv --pfl-python ~/pfl/bin/python

All ways take turns, in another order each time. ``ratio`` is the examples per CPU second over those of the usual app in
the same turn, ``floor`` over those of the plain loop in the same number format: both can be compared between machines.
The ways are in ``peer_ways.py``. pfl-research needs an environment of its own, since it does not go with every package
of ours; without it, its rows are left out, and the last line says so:

    python -m venv ~/pfl && ~/pfl/bin/pip install pfl torch
"""

import argparse
import csv
import inspect
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.ledger import positive
from benchmarks.peer_ways import DIGITS, PLAIN, USUAL, Case, Trained, Turn, Workload, in_process
from server_app.cli.config import path_argument
from tasks.encoders.base import chosen_precision

WORKER = Path(__file__).with_name("pfl_worker.py")
PFL = "pfl-research"
INSTALL = "python -m venv ~/pfl && ~/pfl/bin/pip install pfl torch, then --pfl-python ~/pfl/bin/python"
WORKLOADS = {
    "digits-cnn": Workload("digits-cnn", 16, clients=10, examples=100, task=DIGITS),
    "pfl": Workload("benchmarks.peer_ways:two_convolutions", 10, clients=10, examples=50),
    "thin-cnn8": Workload("thin-cnn8", 50, clients=2, examples=250),
    "cnn8": Workload("cnn8", 50, clients=1, examples=100),
}


@dataclass(frozen=True)
class Row:
    """One turn: examples trained on, seconds of CPU time and of the clock, and the loss before and after."""

    workload: str
    way: str
    turn: int
    examples: int
    cpu_seconds: float
    seconds: float
    loss_before: float
    loss_after: float

    @property
    def speed(self) -> float:
        """Examples per CPU second."""
        return self.examples / self.cpu_seconds


@dataclass(frozen=True)
class Timed:
    """What a turn did and what it took, in seconds of CPU time and of the clock."""

    trained: Trained
    cpu_seconds: float
    seconds: float


TimedTurn = Callable[[], Timed]


def timed(turn: Turn) -> TimedTurn:
    """Return the turn with its times; no way starts other processes, so this one's CPU time is all."""

    def play() -> Timed:
        cpu, clock = time.process_time(), time.perf_counter()
        trained = turn()
        return Timed(trained, time.process_time() - cpu, time.perf_counter() - clock)

    return play


@contextmanager
def pfl_research(case: Case, python: str, threads: int) -> Iterator[TimedTurn]:
    """Yield the turns of pfl's own simulation, in a process of its own that waits between them."""
    with tempfile.TemporaryDirectory() as folder:
        data, result = Path(folder) / "data.npz", Path(folder) / "result.npz"
        users = [(case.task.prepare(own.features).numpy(), own.labels) for own in case.clients]
        least = min(len(labels) for _, labels in users)
        images, labels = (np.stack([each[part][:least] for each in users]) for part in (0, 1))
        named = {f"weight:{name}": array for name, array in case.weights.items()}
        np.savez(data, images=images, labels=labels, **named)
        work = case.workload
        options = {"layers": layers(case.model()), "batch_size": work.batch_size, "rate": work.rate, "threads": threads}
        command = [python, str(WORKER), str(data), json.dumps(options)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None

            def play() -> Timed:
                with suppress(BrokenPipeError):
                    os.write(worker.stdin.fileno(), f"{result}\n".encode())
                found = json.loads(worker.stdout.readline() or "null")
                if found is None:
                    raise RuntimeError(f"{PFL}: {python} ended; what it said is above")
                with np.load(result, allow_pickle=False) as file:
                    weights = {name: file[name] for name in file.files}
                return Timed(Trained(weights, found["examples"]), found["cpu"], found["seconds"])

            yield play
            worker.stdin.close()


def layers(model: nn.Module) -> list[tuple[str, dict[str, Any]]]:
    """Return the layers of a sequence as their class names in ``torch.nn`` and the numbers they were made with."""
    plain = (bool, int, float, str, tuple)
    return [
        (
            type(layer).__name__,
            {n: getattr(layer, n) for n in named(layer) if isinstance(getattr(layer, n, None), plain)},
        )
        for layer in model.children()
    ]


def named(layer: nn.Module) -> list[str]:
    """Return the names of what a layer is made with."""
    return [*inspect.signature(type(layer).__init__).parameters][1:]


def has_pfl(python: str) -> bool:
    """Tell whether a Python has pfl-research and torch."""
    return subprocess.run([python, "-c", "import pfl, torch"], capture_output=True, check=False).returncode == 0


def measure(name: str, work: Workload, args: argparse.Namespace) -> Iterator[Row]:
    """Yield the turns of one workload; a first one, which also warms up, is not counted."""
    case = Case(work)
    before = case.loss(case.weights)
    with ExitStack() as open_until_done:
        turns = {way: timed(turn) for way, turn in in_process(case, args.bfloat16).items()}
        if args.pfl_python:
            turns[PFL] = open_until_done.enter_context(pfl_research(case, args.pfl_python, args.threads))
        turns = {way: turn for way, turn in turns.items() if any(fnmatch(way, wanted) for wanted in args.ways)}
        for number in range(args.repetitions + 1):
            for way in in_turn([*turns], number):
                found = turns[way]()
                if number:
                    spent = (found.trained.examples, found.cpu_seconds, found.seconds)
                    yield Row(name, way, number, *spent, before, case.loss(found.trained.weights))


def in_turn(ways: Sequence[str], number: int) -> list[str]:
    """Return the ways in another order each time: none always follows the same one's mess in the caches.

    >>> in_turn(["a", "b", "c"], 1), in_turn(["a", "b", "c"], 2)
    (['a', 'c', 'b'], ['c', 'a', 'b'])
    """
    start = number % len(ways)
    order = [*ways[start:], *ways[:start]]
    return order[::-1] if number % 2 else order


def summary(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """Return a line for each workload and way: medians, and the least and the largest ratio, over the turns."""
    turns = {(row.workload, row.way, row.turn): row for row in rows}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in turns.values():
        groups.setdefault((row.workload, row.way), []).append(row)
    lines = []
    for (workload, way), members in groups.items():
        bases = (USUAL, PLAIN.format("bfloat16" if "bfloat16" in way else "float32"))
        over = [ratios(members, [turns.get((workload, base, row.turn)) for row in members]) for base in bases]
        speed = statistics.median(row.speed for row in members)
        clock = statistics.median(row.examples / row.seconds for row in members)
        lines.append((workload, way, f"{speed:.0f}", f"{clock:.0f}", *over))
    return lines


def ratios(members: Sequence[Row], bases: Sequence[Row | None]) -> str:
    """Return median (least-largest) of the speeds over those of the same turns of another way; a dash without it."""
    found = [row.speed / base.speed for row, base in zip(members, bases, strict=True) if base]
    return f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})" if found else "-"


def table(rows: Iterable[Row]) -> str:
    """Return the summary as Markdown."""
    head = ("workload", "way", "examples per CPU s", "per s", "ratio", "floor")
    lines = [head, ("---", "---", "--:", "--:", "--:", "--:"), *summary(rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write one line per turn, with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def processor() -> str:
    """Return what the CPU calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def workloads(args: argparse.Namespace) -> Mapping[str, Workload]:
    """Return the workloads that are asked for, in the size that is."""
    sizes = {name: value for name in ("clients", "examples") if (value := getattr(args, name)) is not None}
    return {name: replace(WORKLOADS[name], **sizes) for name in args.workloads}


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=[*WORKLOADS])
    parser.add_argument("--ways", nargs="+", default=["*"], help="names of ways, or patterns such as 'winnow*'")
    parser.add_argument("--repetitions", type=positive, default=5, help="turns of each way, after one that warms up")
    parser.add_argument("--clients", type=positive, help="that train in a turn")
    parser.add_argument("--examples", type=positive, help="of each client")
    parser.add_argument("--threads", type=positive, default=1, help="torch threads")
    native = chosen_precision("auto") is torch.bfloat16
    parser.add_argument(
        "--bfloat16", action=argparse.BooleanOptionalAction, default=native, help="default: if this CPU computes in it"
    )
    parser.add_argument("--pfl-python", default=sys.executable, help="Python that has the packages pfl and torch")
    parser.add_argument("--output", type=path_argument, help="CSV file of all turns; the table goes beside it, as .md")
    return parser.parse_args(words)


def main() -> None:
    """Measure, print the table after each workload, and write both if asked to."""
    args = arguments(sys.argv[1:])
    torch.set_num_threads(args.threads)
    missing = "" if has_pfl(args.pfl_python) else f"{PFL} is not measured: {args.pfl_python} lacks it; {INSTALL}"
    if missing:
        args.pfl_python = None
    about = f"{processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    rows: list[Row] = []
    for name, work in workloads(args).items():
        rows += measure(name, work, args)
        print(f"{about}, {args.threads} threads\n\n{table(rows)}\n\n{missing}", flush=True)
        if args.output:
            write_csv(args.output, rows)
            args.output.with_suffix(".md").write_text(f"{about}\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
