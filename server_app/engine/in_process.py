"""In-process clients of a simulation: the pool of a grid whose messages are answered in this process, one by one.

For many small runs side by side, each in a process of its own: nothing is packed, sent or waited for. The numbers are
those of clients in processes of their own: what clients draw from the process' random generators is taken back, so that
the server goes on as if they were elsewhere.
"""

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from server_app.engine.worker import Answered, Asked, Start, answers


class InProcessPool:
    """Clients in this process, which must be one of simulated clients; see :func:`server_app.engine.worker.begin`.

    Parameters
    ----------
    start
        The run's id and configuration.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._batches: list[Iterator[Answered]] = []

    def submit(self, asked: Iterable[Asked]) -> None:
        """Take messages; each is answered when :meth:`poll` comes to it."""
        self._batches.append(answers(list(asked), self._start))

    def poll(self, seconds: float) -> list[Answered]:
        """Return the next reply; if nothing is asked any more, nothing after ``seconds``."""
        while self._batches:
            with generators_kept():
                found = next(self._batches[0], None)
            if found is not None:
                return [found]
            self._batches.pop(0)
        time.sleep(seconds)
        return []

    def close(self) -> None:
        """Let all clients go."""
        self._batches.clear()


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the random generators of Python, NumPy and torch back at the end of the block."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = [(gpu, gpu.get_state()) for gpu in torch.cuda.default_generators]  # there are none before CUDA is used
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        for gpu, state in gpus:
            gpu.set_state(state)
