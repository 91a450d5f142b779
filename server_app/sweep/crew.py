"""Crew of a sweep: the processes that play runs side by side, as many as cores and memory allow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from server_app.engine.fork_server import ForkServer, how_it_ended
from server_app.engine.wire import Pipe, start
from server_app.sweep.player import Began, Job, Outcome

PLAYER = "server_app.sweep.player"
NAME = "run process"
KEPT_FREE = 0.1
"""Share of the memory that is available which stays so."""


@dataclass(frozen=True)
class Died:
    """A process ended while it played a run."""

    key: str
    reason: str


Event = Began | Outcome | Died


class Crew(Protocol):
    """Who plays runs."""

    @property
    def size(self) -> int:
        """How many runs are played side by side at most."""

    def free(self) -> bool:
        """Tell whether another run can begin now."""

    def begin(self, job: Job) -> None:
        """Begin a run."""

    def events(self) -> list[Event]:
        """Wait until something happens, and return it."""

    def close(self) -> None:
        """End all, whatever they do."""


@dataclass
class Player:
    """A process, its pipe, and the run that it plays."""

    pid: int
    pipe: Pipe
    job: Job | None = None


class LocalCrew:
    """Processes on this machine, forked by one that has imported everything.

    The first begins alone. When its first round is done its memory is known, and as many others begin as there is room
    for.

    Parameters
    ----------
    variables
        The environment of all.
    devices
        For each its own environment variables; there are as many at most.
    limited
        False begins as many at once, however much memory they take.
    say
        Takes what a process prints outside of its runs.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        devices: Sequence[Mapping[str, str]],
        say: Callable[[str], None],
        limited: bool = True,
    ) -> None:
        self._variables, self._devices, self._say = variables, devices, say
        self._server: ForkServer | None = None
        self._players: dict[int, Player] = {}  # by their place
        self._largest = 0
        self.size = 1 if limited else len(devices)

    def free(self) -> bool:
        """Tell whether another run can begin now."""
        return sum(player.job is not None for player in self._players.values()) < self.size

    def begin(self, job: Job) -> None:
        """Begin a run.

        Raises
        ------
        EngineError
            If no process can be started.
        """
        idle = (place for place, player in self._players.items() if player.job is None)
        place = next(idle, -1)
        if place < 0:
            place = next(each for each in range(len(self._devices)) if each not in self._players)
            self._players[place] = self._new(place)
        player = self._players[place]
        player.job = job
        player.pipe.send(job)

    def _new(self, place: int) -> Player:
        self._server = self._server or ForkServer(self._variables, PLAYER)
        pid, own = start(self._server, NAME, lambda line: self._say(line.rstrip()))
        pipe = Pipe(own)
        pipe.send(dict(self._devices[place]))
        return Player(pid, pipe)

    def events(self) -> list[Event]:
        """Wait until something happens, and return it."""
        waiting = {player.pipe.fileno(): place for place, player in self._players.items()}
        return [event for pipe in wait(list(waiting)) if (event := self._take(waiting[pipe])) is not None]  # type: ignore[index]

    def _take(self, place: int) -> Event | None:
        player = self._players[place]
        try:
            event: Began | Outcome = player.pipe.receive()
        except (EOFError, OSError):
            return self._lost(place)
        if isinstance(event, Began):
            self._largest = max(self._largest, event.memory)
            self.size = max(self.size, min(len(self._devices), 1 + room_for(self._largest)))
        else:
            player.job = None
        return event

    def _lost(self, place: int) -> Died | None:
        player = self._players.pop(place)
        player.pipe.close()
        assert self._server is not None
        how = how_it_ended(self._server.end(player.pid))
        return None if player.job is None else Died(player.job.key, f"its process died ({how})")

    def close(self) -> None:
        """End all, whatever they do."""
        if self._server is not None:
            self._server.close()
        for player in self._players.values():
            player.pipe.close()
        self._players.clear()


def room_for(size: int) -> int:
    """Return how many processes of ``size`` bytes fit into the memory that is available; many where it is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    except (OSError, StopIteration, ValueError):
        return 2**10
    return int((1 - KEPT_FREE) * 1024 * kilobytes) // max(1, size)
