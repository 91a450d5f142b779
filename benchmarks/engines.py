"""What a user waits for in a simulation, by engine: seconds and CPU seconds before round 1, of the rounds, and in all.

    python -m benchmarks.engines                      # the demo of ``make demo``, both engines in turn
    python -m benchmarks.engines --repeats 1 num-server-rounds=2 variants=

The time before round 1 ends with the line of round 0. CPU seconds are those of all processes of a command, found by a
mark in their environment (Linux) and looked at four times a second: what a process does after the last look is missed.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from server_app.cli.run import ENGINES

LOOK = 0.25  # seconds
TICKS = os.sysconf("SC_CLK_TCK")
ROUND = re.compile(r"(?:\[\S+\]\s+)?round +(\d+)/")
COLUMNS = ("s before round 1", "CPU s before", "s of the rounds", "CPU s of the rounds", "s in all", "CPU s in all")


@dataclass(frozen=True)
class Waited:
    """Seconds and CPU seconds of one run."""

    before: float
    before_cpu: float
    rounds: float
    rounds_cpu: float
    total: float
    total_cpu: float


class MarkedProcesses:
    """Sums the CPU seconds of all processes that carry a mark in their environment."""

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._others: set[int] = set()
        self._cpu: dict[int, float] = {}

    def look(self) -> float:
        """Return the CPU seconds of all that were ever seen, the dead ones as they were seen last."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and int(folder.name) not in self._others:
                try:
                    self._take(folder)
                except OSError:  # it has ended
                    continue
        return sum(self._cpu.values())

    def _take(self, folder: Path) -> None:
        process = int(folder.name)
        if process not in self._cpu and self._mark not in (folder / "environ").read_bytes():
            self._others.add(process)
            return
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        self._cpu[process] = (int(fields[11]) + int(fields[12])) / TICKS


def play(engine: str, words: Sequence[str]) -> Waited:
    """Do one run."""
    mark = uuid.uuid4().hex
    seen, ended = MarkedProcesses(mark), threading.Event()
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "server_app.cli", "run", "--engine", engine, *words]
        started, own = time.monotonic(), {**os.environ, "WINNOW_MARK": mark}
        looks: list[tuple[float, float]] = [(0.0, 0.0)]

        def watch() -> None:
            while not ended.wait(LOOK):
                looks.append((time.monotonic() - started, seen.look()))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            with subprocess.Popen(
                [*command, f"run.output-dir={folder}"], env=own, stdout=subprocess.PIPE, text=True
            ) as run:
                assert run.stdout is not None
                marks = [(time.monotonic() - started, int(m[1])) for line in run.stdout if (m := ROUND.match(line))]
            total = time.monotonic() - started
        finally:
            ended.set()
            thread.join()
    if run.returncode or not marks:
        raise SystemExit(f"the run on the engine {engine} has failed (exit code {run.returncode})")
    before, last = marks[0][0], marks[-1][0]
    return Waited(
        before, cpu_at(looks, before), last - before, cpu_at(looks, last) - cpu_at(looks, before), total, looks[-1][1]
    )


def cpu_at(looks: Sequence[tuple[float, float]], moment: float) -> float:
    """Return the CPU seconds at the last look before a moment.

    >>> cpu_at([(0.0, 0.0), (1.0, 2.0), (2.0, 3.0)], 1.5)
    2.0
    """
    return [cpu for at, cpu in looks if at <= moment][-1]


def table(found: dict[str, list[Waited]]) -> str:
    """Return the medians by engine, and their ratio, as a Markdown table."""
    rows = {name: [median(column) for column in zip(*map(astuple, runs), strict=True)] for name, runs in found.items()}
    own, flower = (rows[name] for name in ENGINES)
    lines = [f"| engine | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|"]
    lines += [f"| {name} | {' | '.join(f'{value:.1f}' for value in row)} |" for name, row in rows.items()]
    ratios = [there / max(here, 1e-9) for here, there in zip(own, flower, strict=True)]
    return "\n".join([*lines, f"| flower / local | {' | '.join(f'{ratio:.1f}' for ratio in ratios)} |"])


def main() -> None:
    """Play both engines in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", default=["demo"], help="recipe and settings, as of winnow run")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, list[Waited]] = {name: [] for name in ENGINES}
    for number in range(args.repeats):
        for name in ENGINES if number % 2 else ENGINES[::-1]:
            found[name].append(play(name, args.words))
            print(f"{name}: {found[name][-1]}", file=sys.stderr, flush=True)
    print(f"load average {os.getloadavg()[0]:.1f}\n\n{table(found)}")


if __name__ == "__main__":
    main()
