"""The load test: what it counts and prints; never how fast."""

import itertools
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

from benchmarks import load
from benchmarks.load import Sample, kind_of, look, spent, watched

PATIENCE = 120.0


def sample(cpu: float, rss: int) -> Sample:
    return Sample(Counter(superlink=cpu), Counter(superlink=rss), rss)  # type: ignore[arg-type]


def test_processes_are_told_apart_by_their_command_line():
    assert kind_of("python\0/venv/bin/flower-superlink\0--host\0a") == "superlink"
    assert kind_of("python\0/venv/bin/flwr-serverapp\0--token\0a") == "serverapp"
    assert kind_of("python\0-m\0pytest\0python") == "other"


def test_a_look_reads_a_living_process_and_leaves_out_a_dead_one(tmp_path: Path):
    database = tmp_path / "state.db"
    database.write_bytes(b"x" * 100)
    (tmp_path / "state.db-wal").write_bytes(b"x" * 20)
    ended = subprocess.Popen(["true"])
    ended.wait()
    seen = look([os.getpid(), ended.pid], database)
    assert seen.rss["other"] > 1e7
    assert seen.cpu["other"] > 0
    assert seen.database == 120


def test_cpu_is_the_growth():
    assert spent([sample(1.0, 100), sample(3.0, 400), Sample(), sample(3.5, 200)], "superlink") == 2.5
    assert spent([], "superlink") == 0


def test_rounds_are_kept_apart():
    numbers, cpu = itertools.chain([1, 1, 2, 2, 2], itertools.repeat(4)), itertools.count()
    with watched(lambda: sample(next(cpu), 1), lambda: next(numbers), pause=0.001) as rounds:
        deadline = time.monotonic() + PATIENCE
        while 4 not in rounds and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [[each.cpu["superlink"] for each in rounds[number]] for number in (1, 2)] == [[0, 1], [2, 3, 4]]


def test_a_row_ends_with_the_next_round_s_first_look():
    rounds = {3: [sample(0.5, 2_000_000), sample(2.0, 3_000_000)], 5: [sample(2.5, 1), sample(9.0, 1)]}
    found = load.row(2, {"round": 3, "seconds": 5.0, "replies": 2, "unknown": 1}, rounds)
    assert (found.nodes, found.round, found.seconds, found.replies) == (2, 3, 5.0, 2)
    assert (found.superlink_cpu, found.superlink_mb, found.database_mb) == (2.0, 3.0, 3.0)
    assert (found.serverapp_cpu, found.serverapp_mb) == (0, 0)
    header, _, line = load.table([found]).splitlines()
    assert header.startswith("| nodes | round | load | seconds | replies | superlink_cpu |")
    assert line.startswith("| 2 | 3 | ")
    assert line.endswith(" | 5 | 2 | 2 | 0 | 3 | 0 | 3 |")
