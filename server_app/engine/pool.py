"""Pool of worker processes: hands out the messages to clients, collects the replies, and replaces workers that die.

Messages go to idle workers in batches that become smaller, so that all workers finish together. When a worker dies, the
messages of its batch that have no reply yet are given out again, each alone: the one with which a worker dies again is
answered by an error, which is a failed reply of its client, and all others are answered.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import WARNING
from math import ceil
from multiprocessing.connection import wait

from flwr.app import Array, ArrayRecord, Error, Message
from flwr.common.logger import log

from client_app.mods import WATCHDOG_FACTOR
from server_app.engine.fork_server import ForkServer, how_it_ended
from server_app.engine.wire import Pipe, start
from server_app.engine.worker import Answered, Asked, Start
from tasks.records import records_of

DIED = 0  # Flower's code for an error of unknown kind
NAME = "client worker"


@dataclass
class Worker:
    """A worker process, its pipe, and the messages of its batch that it has not answered yet."""

    pid: int
    pipe: Pipe
    batch: deque[Asked] = field(default_factory=deque)


class WorkerPool:
    """Worker processes of one run.

    Parameters
    ----------
    server
        Forks them; the caller closes it.
    start
        What each is told first.
    devices
        For each worker its own environment variables; there are as many workers.
    say
        Takes each line that a worker writes, with the worker's name before it.
    """

    def __init__(
        self, server: ForkServer, start: Start, devices: Sequence[Mapping[str, str]], say: Callable[[str], None]
    ) -> None:
        self._server, self._start, self._devices, self._say = server, start, devices, say
        self._workers: dict[int, Worker] = {}  # by their place
        self._queue: deque[Asked] = deque()
        self._alone: set[str] = set()  # the ids of messages that are given out one by one
        self._found: list[Answered] = []
        self._arrays: dict[int, Array] = {}  # which keeps their ids their own
        self._numbers: dict[int, int] = {}
        self._count = 0

    def submit(self, asked: Iterable[Asked]) -> None:
        """Take messages; see :meth:`poll` for what happens to them."""
        self._queue += asked
        self._share()
        self._hand_out()

    def poll(self, seconds: float) -> list[Answered]:
        """Return the replies that have come, or else those that come first, after ``seconds`` at the latest."""
        self._end_overdue()
        self._hand_out()
        busy = {worker.pipe.fileno(): place for place, worker in self._workers.items() if worker.batch}
        if not busy and not self._found:
            time.sleep(seconds)
        for pipe in wait(list(busy), 0 if self._found else seconds):
            self._take(busy[pipe])  # type: ignore[index]
        found, self._found = self._found, []
        return found

    def close(self) -> None:
        """Let all workers go."""
        for worker in self._workers.values():
            worker.pipe.close()
        self._workers.clear()

    def _share(self) -> None:
        """Number the arrays of all messages that are to be sent; the others need not be known any more."""
        arrays = {id(array): array for asked in self._queue for array in _arrays(asked.message)}
        for name in arrays.keys() - self._arrays.keys():
            self._count += 1
            self._numbers[name] = self._count
        for name in self._arrays.keys() - arrays.keys():
            del self._numbers[name]
        self._arrays = arrays

    def _hand_out(self) -> None:
        for place in range(len(self._devices)):
            while self._queue and not (place in self._workers and self._workers[place].batch):
                self._give(place, self._next_batch())

    def _give(self, place: int, batch: list[Asked]) -> None:
        if not batch:
            return
        is_new = place not in self._workers
        worker = self._new(place) if is_new else self._workers[place]
        worker.batch.extend(batch)
        try:
            if is_new:
                worker.pipe.send(replace(self._start, variables=self._devices[place]))
            worker.pipe.send(batch)
        except OSError:
            self._lost(place, blamed=is_new)  # an older one has died since its last reply, not of this batch

    def _next_batch(self) -> list[Asked]:
        """Return what a worker gets next; messages for which nobody waits any more are dropped."""
        self._queue = deque(asked for asked in self._queue if time.time() < _expiry(asked.message))
        alone = next((place for place, asked in enumerate(self._queue) if asked.name in self._alone), len(self._queue))
        workers = len(self._devices)
        size = len(self._queue) if workers == 1 else ceil(len(self._queue) / (2 * workers))
        return [self._queue.popleft() for _ in range(min(size, max(1, alone)))]

    def _new(self, place: int) -> Worker:
        pid, own = start(self._server, NAME, self._say)
        self._workers[place] = worker = Worker(pid, Pipe(own, self._numbers))
        return worker

    def _take(self, place: int) -> None:
        worker = self._workers[place]
        try:
            found: Answered = worker.pipe.receive()
        except (EOFError, OSError):
            self._lost(place)
            return
        worker.batch.popleft()
        self._found.append(found)

    def _lost(self, place: int, how: str = "", blamed: bool = True) -> None:
        """Put what a dead worker has not answered back into the queue; answer a message that was given out alone."""
        worker = self._workers.pop(place)
        worker.pipe.close()
        how = how or how_it_ended(self._server.end(worker.pid))
        left = list(worker.batch)
        if blamed and left and left[0].name in self._alone:
            log(WARNING, "The process of client %s died (%s); another one is started.", left[0].client, how)
            error = Error(DIED, f"the process of this client died ({how})")
            self._found.append(Answered(Message(error, reply_to=left[0].message), left[0].state))
            return
        self._alone |= {asked.name for asked in left} if blamed else set()
        self._queue.extendleft(reversed(left))
        self._share()

    def _end_overdue(self) -> None:
        """End workers that hang while others wait for them: nobody has waited for their replies for long."""
        for place, worker in list(self._workers.items()):
            if self._queue and worker.batch and time.time() > _expiry(worker.batch[0].message, WATCHDOG_FACTOR):
                self._server.end(worker.pid)
                self._lost(place, "it was ended, because it had not answered for long")


def _arrays(message: Message) -> list[Array]:
    return [array for record in records_of(message.content, ArrayRecord).values() for array in record.values()]


def _expiry(message: Message, factor: float = 1.0) -> float:
    """Return until when (``time.time`` seconds) a reply to a message is waited for, or ``factor`` times as long."""
    return message.metadata.created_at + factor * message.metadata.ttl
