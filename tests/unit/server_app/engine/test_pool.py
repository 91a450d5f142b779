"""The pool and its grid with workers that are threads of this process, and the wire between them."""

import gc
import os
import signal
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from socket import socket

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from server_app.app import mode_of
from server_app.engine.grid import WorkerGrid
from server_app.engine.pool import WorkerPool
from server_app.engine.wire import Pipe
from server_app.engine.worker import Answered, Asked, Start
from server_app.transport.client_grid import NodeGrid
from tasks.protocol import Mode
from tasks.records import byte_array

Script = Callable[[int, Asked], bool]
"""Says, from the worker's number and the message, whether the worker goes on after it has looked at it."""


class Threads:
    """Stands for the fork server: its workers are threads, and one that dies closes its pipe."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.batches: list[list[int]] = []
        self.asked: list[tuple[int, int]] = []  # by whom, and which client
        self.models: list[tuple[int, Array]] = []  # by whom, and the model that came
        self.started = 0
        self.ended: list[int] = []

    def fork(self, pipe: socket, output: int) -> int:
        self.started += 1
        args = (socket(fileno=os.dup(pipe.fileno())), os.dup(output), self.started)
        threading.Thread(target=self.work, args=args, daemon=True).start()
        return self.started

    def end(self, worker: int) -> int:
        self.ended.append(worker)
        return -signal.SIGKILL

    def work(self, pipe: socket, output: int, number: int) -> None:
        with pipe, open(output, "w") as lines, suppress(EOFError, OSError):
            end = Pipe(pipe)
            assert isinstance(end.receive(), Start)
            while batch := end.receive():
                self.batches.append([asked.client for asked in batch])
                for asked in batch:
                    self.asked.append((number, asked.client))
                    self.models.append((number, asked.message.content["m"]["flat"]))
                    print("looks", asked.client, file=lines, flush=True)
                    if not self.script(number, asked):
                        return
                    end.send(self.reply(asked))

    def reply(self, asked: Asked) -> Answered:
        """Send the message's own arrays back, and count in the node's state how often it was asked."""
        state = RecordDict({"times": ConfigRecord({"n": int(asked.state.get("times", {"n": 0})["n"]) + 1})})
        [(name, record)] = asked.message.content.items()
        return Answered(Message(RecordDict({name: ArrayRecord(dict(record)), **state}), reply_to=asked.message), state)


class Scene:
    def __init__(self, script: Script = lambda number, asked: True, workers: int = 2, clients: int = 8) -> None:
        self.threads = Threads(script)
        self.lines: list[str] = []
        self.pool = WorkerPool(self.threads, Start(1, {}), [{}] * workers, self.lines.append)  # type: ignore[arg-type]
        self.grid = WorkerGrid(self.pool, clients)

    def ask(self, record: ArrayRecord, timeout: float = 5.0, ttl: float | None = None) -> dict[int, Message]:
        messages = [Message(RecordDict({"m": record}), node, "train", ttl=ttl) for node in self.grid.get_node_ids()]
        replies = NodeGrid(self.grid, Mode.SIMULATION).send_and_receive(messages, timeout=timeout)
        return {reply.metadata.src_node_id - 1000: reply for reply in replies}


@pytest.fixture
def scene() -> Iterator[Scene]:
    found = Scene()
    yield found
    found.pool.close()


def model(size: int = 2**20, seed: int = 0) -> ArrayRecord:
    return ArrayRecord({"flat": byte_array(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))})


def times(reply: Message) -> int:
    return int(reply.content.config_records["times"]["n"])


def test_every_client_answers_and_its_state_is_kept(scene: Scene) -> None:
    assert mode_of(scene.grid) is Mode.SIMULATION
    for round_number in (1, 2):
        sent = model(seed=round_number)
        replies = scene.ask(sent)
        assert sorted(replies) == list(range(8))
        assert all(reply.content["m"]["flat"].data == sent["flat"].data for reply in replies.values())
        assert {times(reply) for reply in replies.values()} == {round_number}
    assert scene.threads.started == 2, "workers stay"
    assert Counter(client for _, client in scene.threads.asked) == dict.fromkeys(range(8), 2)
    assert len(scene.threads.batches[0]) == 2, "a part of what is left for each worker, twice as many parts as workers"
    assert any(line.startswith("(client worker pid=1) looks ") for line in scene.lines)


def test_a_model_goes_to_a_worker_once_and_is_forgotten_after_its_round(scene: Scene) -> None:
    for seed in (1, 2):
        scene.ask(model(seed=seed))
    assert len(scene.threads.batches) > 8
    for worker in (1, 2):
        assert len({id(array) for number, array in scene.threads.models if number == worker}) == 2
    first = weakref.ref(scene.threads.models[0][1])
    scene.threads.models.clear()
    gc.collect()
    assert first() is None


def test_a_client_whose_worker_dies_is_a_failed_reply_and_the_run_goes_on() -> None:
    scene = Scene(lambda number, asked: asked.client != 0)
    for expected in (1, 2):
        replies = scene.ask(model(16))
        assert sorted(replies) == list(range(8))
        reason = "the process of this client died (killed by SIGKILL: out of memory?)"
        assert {client: r.error.reason for client, r in replies.items() if r.has_error()} == {0: reason}
        assert {times(reply) for reply in replies.values() if reply.has_content()} == {expected}
    again = Counter(client for _, client in scene.threads.asked)
    assert (again[0], again[1]) == (4, 2), "in a batch, and then alone, in both rounds"
    scene.pool.close()


def test_one_that_dies_once_costs_no_reply() -> None:
    scene = Scene(lambda number, asked: number > 1 or asked.client != 1, workers=1)
    replies = scene.ask(model(16))
    assert sorted(replies) == list(range(8))
    assert not any(reply.has_error() for reply in replies.values())
    assert scene.threads.started == 2
    assert scene.threads.ended == [1]
    scene.pool.close()


def test_a_worker_that_died_while_it_had_nothing_to_do_is_replaced(scene: Scene) -> None:
    scene.ask(model(16))
    for worker in scene.pool._workers.values():
        worker.pipe._end.shutdown(2)
    replies = scene.ask(model(16))
    assert [reply.has_error() for reply in replies.values()] == [False] * 8


def test_a_client_that_hangs_costs_a_round_its_time_and_no_worker() -> None:
    release = threading.Event()
    stuck = [3]

    def script(number: int, asked: Asked) -> bool:
        return asked.client not in stuck or release.wait(60.0)

    scene = Scene(script, workers=1, clients=4)
    assert sorted(scene.ask(model(16), timeout=0.2, ttl=0.2)) == [0, 1, 2]
    stuck.clear()
    time.sleep(0.2)  # twice as long as its message lives, it is ended for others that wait
    assert sorted(scene.ask(model(16), ttl=5.0)) == [0, 1, 2, 3]
    assert (scene.threads.started, scene.threads.ended) == (2, [1])
    release.set()
    scene.pool.close()
