"""What the processes of a federation cost, read from /proc and the SuperLink's database while it runs (Linux).

Memory is the resident size (RSS) of one process, or for many processes together the proportional size (PSS), which
counts a page that several share once. CPU is in seconds of one core.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# What a process is, by a word of its command line or its name, of which Linux keeps 15 letters; the first that fits.
KINDS = {
    "flower-superlink": "superlink",
    "flwr-serverapp": "serverapp",
    "flwr-clientapp": "clientapp",
    "flower-supernod": "supernode",
    "flower-superexe": "executor",
    "benchmarks.load_nodes": "light nodes",
}


@dataclass
class Sample:
    """One look: by kind of process their number, resident and proportional bytes, and CPU seconds so far.

    ``database`` is its size in bytes, ``totals`` what light nodes say they have done.
    """

    count: Counter[str] = field(default_factory=Counter)
    rss: Counter[str] = field(default_factory=Counter)
    pss: Counter[str] = field(default_factory=Counter)
    cpu: dict[str, float] = field(default_factory=dict)
    database: int = 0
    totals: Counter[str] = field(default_factory=Counter)


def look(pids: Iterable[int], database: Path, logs: Iterable[Path] = ()) -> Sample:
    """Read all processes; those that end meanwhile are left out."""
    sample = Sample(database=database_size(database), totals=light_totals(logs))
    for pid in pids:
        folder = PROC / str(pid)
        try:
            kind = kind_of((folder / "cmdline").read_text() + (folder / "comm").read_text())
            ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
            rss = int((folder / "statm").read_text().split()[1]) * PAGE
            shared = (folder / "smaps_rollup").read_text()
        except OSError:
            continue
        sample.count[kind] += 1
        sample.rss[kind] += rss
        sample.pss[kind] += 1024 * int(next(line for line in shared.splitlines() if line.startswith("Pss:")).split()[1])
        sample.cpu[kind] = sample.cpu.get(kind, 0.0) + sum(map(int, ticks)) / TICKS
    return sample


def kind_of(command: str) -> str:
    """Return what a process is from its command line, words separated by NUL.

    >>> kind_of("python" + chr(0) + "/venv/bin/flower-superlink" + chr(0) + "--host")
    'superlink'
    """
    return next((kind for word, kind in KINDS.items() if word in command), "other")


def database_size(database: Path) -> int:
    """Return the bytes of the database and of the log of recent changes beside it."""
    files = (database.with_name(database.name + suffix) for suffix in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def light_totals(logs: Iterable[Path]) -> Counter[str]:
    """Return the sum of the last lines of the light nodes' logs."""
    totals: Counter[str] = Counter()
    for log in logs:
        for line in lines_of(log)[-1:]:
            totals.update(line)
    return totals


def lines_of(file: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a file of JSON lines, none if there is no file yet."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


class Meter:
    """Takes a look every ``seconds`` while the block runs, and keeps the looks of each round apart.

    Parameters
    ----------
    look
        Returns what there is to see.
    current
        Returns the number of the round being played.
    """

    def __init__(self, look: Callable[[], Sample], current: Callable[[], int], seconds: float = 1.0) -> None:
        self._look, self._current, self._seconds = look, current, seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.rounds: dict[int, list[Sample]] = {}

    def __enter__(self) -> "Meter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._keep()

    def _watch(self) -> None:
        while not self._end.is_set():
            self._keep()
            self._end.wait(self._seconds)

    def _keep(self) -> None:
        self.rounds.setdefault(self._current(), []).append(self._look())

    def during(self, number: int) -> list[Sample]:
        """Return the looks of a round, and the first one after it, with which its CPU time ends."""
        following = [samples[0] for later, samples in sorted(self.rounds.items()) if later > number]
        return self.rounds.get(number, []) + following[:1]


def peak(samples: Iterable[Sample], kind: str) -> int:
    """Return the largest resident size of the processes of a kind, all together."""
    return max((sample.rss[kind] for sample in samples), default=0)


def mean(samples: Iterable[Sample], kind: str) -> float:
    """Return the largest mean resident size of the processes of a kind."""
    return max((sample.rss[kind] / sample.count[kind] for sample in samples if sample.count[kind]), default=0.0)


def spent(samples: Iterable[Sample], kind: str) -> float:
    """Return the CPU seconds between the first and the last look; only where no process of the kind ends meanwhile."""
    seconds = [sample.cpu[kind] for sample in samples if kind in sample.cpu]
    return seconds[-1] - seconds[0] if seconds else 0.0
