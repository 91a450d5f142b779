"""The load test: what it starts, counts and prints; never how fast."""

import fcntl
import itertools
import os
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from benchmarks import load, load_echo, load_fork
from benchmarks.load_federation import Case, play
from benchmarks.load_fork import forking
from benchmarks.load_meter import Meter, Sample, kind_of, light_totals, look, mean, peak, spent
from server_app.command.environment import environment
from server_app.command.processes import ProcessGroup
from server_app.command.superlink import Connection
from server_app.grid import ClientGrid
from tasks.envelope import Envelope
from tasks.mode import Mode

PATIENCE = 120.0
CASE = Case("echo", "light", nodes=2, megabytes=0.1, rounds=1, idle=1.0, timeout=120.0)


def sample(cpu: float, rss: int, count: int = 1) -> Sample:
    return Sample(Counter(node=count), Counter(node=rss), Counter(node=rss // 2), {"node": cpu}, rss)


def test_processes_are_told_apart_by_command_line_or_name():
    assert kind_of("python\0/venv/bin/flower-supernode\0--superlink\0a:1\0python") == "supernode"
    assert kind_of("python\0-m\0benchmarks.load_fork\0flower-superexe") == "executor"
    assert kind_of("python\0-m\0pytest\0python") == "other"


def test_a_look_reads_a_living_process_and_leaves_out_a_dead_one(tmp_path: Path):
    database = tmp_path / "state.db"
    database.write_bytes(b"x" * 100)
    (tmp_path / "state.db-wal").write_bytes(b"x" * 20)
    ended = subprocess.Popen(["true"])
    ended.wait()
    seen = look([os.getpid(), ended.pid], database)
    assert seen.count == {"other": 1}
    assert 1e7 < seen.pss["other"] <= seen.rss["other"]
    assert seen.cpu["other"] > 0
    assert seen.database == 120


def test_totals_are_the_sum_of_the_last_complete_lines(tmp_path: Path):
    (tmp_path / "a").write_text('{"polls": 1}\n{"polls": 5}\n{"pol')
    (tmp_path / "b").write_text('{"polls": 2}\n')
    assert light_totals([tmp_path / "a", tmp_path / "b", tmp_path / "not yet"]) == {"polls": 7}


def test_cpu_is_the_growth_and_memory_the_peak():
    looks = [sample(1.0, 100), sample(3.0, 400, count=4), sample(3.5, 200)]
    assert (spent(looks, "node"), peak(looks, "node"), mean(looks, "node")) == (2.5, 400, 200)
    assert (spent([], "node"), peak([], "node"), mean([], "node")) == (0, 0, 0)


def test_the_meter_keeps_rounds_apart_and_ends_a_round_with_the_next_ones_first_look():
    numbers = itertools.chain([1, 1, 2, 2, 2], itertools.repeat(4))
    cpu = itertools.count()
    with Meter(lambda: sample(next(cpu), 1), lambda: next(numbers), seconds=0.001) as meter:
        deadline = time.monotonic() + PATIENCE
        while 4 not in meter.rounds and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [each.cpu["node"] for each in meter.during(1)] == [0, 1, 2]
    assert [each.cpu["node"] for each in meter.during(2)] == [2, 3, 4, 5]
    assert meter.during(3) == meter.rounds[4][:1]


def test_a_row_has_what_the_server_told_and_what_was_seen():
    looks = [sample(0.0, 1), sample(2.0, 3)]
    looks[1].totals.update(polls=10, poll_s=0.5)
    found = load.row(CASE, {"round": 3, "seconds": 5.0, "replies": 2, "unknown": 1}, looks)
    assert (found.app, found.kind, found.nodes, found.round, found.replies) == ("echo", "light", 2, 3, 2)
    assert (found.polls_a_second, found.poll_ms) == (2.0, 50.0)
    assert found.database_mb == 3e-6
    header, _, line = load.table([found]).splitlines()
    assert "poll_ms" in header
    assert "serverapp_cpu" not in header
    assert line.startswith("| echo | light | 2 | 0.1 | 3 |")
    assert load.table([]) == "|  |\n|  |"


class Answering:
    """Flower's side of the grid: the echo app answers at once; the first question comes too early."""

    def __init__(self) -> None:
        self.replies: list[Message] = []
        self.questions = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = str(number)
            own: dict[str, bool | int | float | str] = {"partition-id": number}
            self.replies.append(load_echo.client(message, Context(1, number, own, RecordDict(), {})))
        return [reply.metadata.reply_to_message_id for reply in self.replies]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.questions += 1
        wanted = set(message_ids) if self.questions > 1 else set()
        return [reply for reply in self.replies if reply.metadata.reply_to_message_id in wanted]


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("task_id", "run_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1, raising=False)


@pytest.mark.usefixtures("identity")
def test_the_echo_adds_the_clients_number_and_the_stopwatch_counts():
    inner: Any = Answering()
    timed, grid = load_echo.Stopwatch(inner), ClientGrid(inner, {0: 100, 1: 101}, Envelope(-1), Mode.SIMULATION)
    line = load_echo.play_round(grid, 4, parameters=10, timeout=PATIENCE)
    assert (line["round"], line["replies"], line["errors"]) == (4, 2, 0)
    assert (timed.measured["pulls"], timed.measured["empty_pulls"]) == (1, 1)
    timed.restart()
    assert set(timed.measured.values()) == {0.0}
    inner.replies.clear()
    record = ArrayRecord({"layer": Array(np.arange(3, dtype=np.float32))})
    messages = [Message(RecordDict({"arrays": record}), client, "train") for client in (0, 1)]
    replies = grid.send_and_receive(messages, timeout=PATIENCE)
    sums = [list(reply.content.array_records["arrays"]["layer"].numpy()) for reply in replies]
    assert sums == [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]


def test_the_app_is_what_flower_takes(tmp_path: Path):
    folder = load_echo.app_folder(tmp_path / "echo")
    app = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    for place in app["components"].values():
        module, _, attribute = place.partition(":")
        assert f"\n{attribute} = " in (folder / f"{module}.py").read_text()
    assert app["config"] == load_echo.CONFIG


def test_an_executor_has_a_place_until_its_clientapp_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(load_fork.tempfile, "gettempdir", lambda: str(tmp_path))
    first, second = load_fork.Turns(2), load_fork.Turns(2)
    first.wait()
    second.wait()
    place = (tmp_path / "winnow-load-0").open("w")
    with pytest.raises(BlockingIOError):
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    app = first.start([sys.executable, "-c", "import time; time.sleep(0.5)"])
    first.wait()  # ends only after the ClientApp, and the other still has its place
    assert app.returncode == 0
    with pytest.raises(BlockingIOError):
        fcntl.flock((tmp_path / "winnow-load-1").open("w"), fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_forked_program_is_flowers_own_and_writes_its_log(tmp_path: Path):
    processes = ProcessGroup()
    link = Connection(tmp_path, "127.0.0.1:1", environment(tmp_path, {load_fork.PLACES: "1"}), processes)
    link.prepare()
    try:
        forking(link).serve("flower-superexec", "--no-such-option", name="forked")
        deadline = time.monotonic() + PATIENCE
        while not (log := link.log_file("forked")).exists() or "usage: flower-superexec" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        assert processes.stop() == []


@pytest.mark.slow
def test_a_federation_of_light_nodes_plays_its_rounds(tmp_path: Path):
    lines, before, during = play(CASE, tmp_path / "logs")
    assert [(line["round"], line["replies"], line["errors"]) for line in lines] == [(1, 2, 0)]
    found = load.row(CASE, lines[0], during.during(1))
    assert found.superlink_mb > 50
    assert found.database_mb > 0
    assert found.serverapp_cpu > 0
    assert before.during(0)[-1].totals["nodes"] == 2
