"""Runs of a benchmark in a CSV file, one line each: what is in it is not done again, so that it can be interrupted."""

import argparse
import csv
import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from server_app.cli.config import path_argument

C = TypeVar("C")
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True)
class Ledger(Generic[C, O]):
    """The runs in the file at ``path``: a ``case`` (a frozen dataclass) decides a run, an ``outcome`` is what it gave.

    Their fields are the columns; they are of type str, int, float or bool.
    """

    path: Path
    case: type[C]
    outcome: type[O]

    def columns(self) -> list[str]:
        """Return the columns of the file."""
        return [field.name for kind in (self.case, self.outcome) for field in fields(kind)]  # type: ignore[arg-type]

    def read(self) -> dict[C, O]:
        """Return the finished runs; none if the file does not exist.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        if not self.path.exists():
            return {}
        with self.path.open(newline="") as file:
            lines = csv.DictReader(file)
            if lines.fieldnames != self.columns():
                expected = ", ".join(self.columns())
                raise ValueError(f"{self.path} is not a file of this benchmark: expected the columns {expected}")
            return {_parsed(self.case, line): _parsed(self.outcome, line) for line in lines}

    def append(self, case: C, outcome: O) -> None:
        """Add one line, and the header if the file is new."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns())
            if new:
                writer.writeheader()
            writer.writerow(asdict(case) | asdict(outcome))  # type: ignore[call-overload]

    def complete(
        self, wanted: Sequence[C], measure: Callable[[C], O], jobs: int, words: Callable[[C, O], str]
    ) -> dict[C, O]:
        """Do the runs that the file does not have yet, add each to it, and return those that are wanted."""
        runs = self.read()
        missing = [case for case in wanted if case not in runs]
        done = len(wanted) - len(missing)
        print(f"{done} of {len(wanted)} runs are in {self.path}, {len(missing)} to do", flush=True)
        for number, (case, outcome) in enumerate(outcomes(missing, measure, jobs), start=1):
            self.append(case, outcome)
            runs[case] = outcome
            print(f"[{number}/{len(missing)}] {words(case, outcome)}", flush=True)
        return {case: runs[case] for case in wanted}


def outcomes(cases: Sequence[C], measure: Callable[[C], O], jobs: int) -> Iterator[tuple[C, O]]:
    """Yield each case with its outcome when it is finished; with several jobs, each is a process of its own."""
    if jobs == 1:
        yield from ((case, measure(case)) for case in cases)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        try:
            waiting = {pool.submit(measure, case): case for case in cases}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation over seeds, the mean alone for one seed, a dash for none.

    >>> spread([80.0, 82.0]), spread([80.0]), spread([])
    ('81.00 ± 1.41', '80.00', '-')
    """
    if not values or any(math.isnan(value) for value in values):
        return "-"
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def add_run_arguments(parser: argparse.ArgumentParser, methods: Iterable[str]) -> None:
    """Add what all benchmarks of many runs take: methods, seeds, jobs and the file of finished runs."""
    names = list(methods)
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time, each a process of its own")
    parser.add_argument("--output", type=path_argument, required=True, help="CSV file of finished runs")


def positive(text: str) -> int:
    """Return a whole number of at least 1.

    Raises
    ------
    ArgumentTypeError
        If it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def _parsed(kind: type[Any], line: Mapping[str, str]) -> Any:
    read: Mapping[Any, Callable[[str], Any]] = {str: str, int: int, float: float, bool: lambda text: text == "True"}
    return kind(**{field.name: read[field.type](line[field.name]) for field in fields(kind)})
