"""Estimate of a sweep's time, from two measured rounds of one run of each option that is compared."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server_app.report.text import duration
from server_app.sweep.crew import Crew, Died
from server_app.sweep.database import COMPLETED, SweepError
from server_app.sweep.keys import run_key
from server_app.sweep.plan import PlannedRun, SweepPlan
from server_app.sweep.player import Began, Job, Outcome
from tasks.config import parse

MEASURED = 2
"""Rounds: the first is slower, for modules load and data is read."""


@dataclass(frozen=True)
class Pace:
    """Seconds of a run's start and of one round, of which the processor worked ``cpu_share``."""

    start: float
    per_round: float
    cpu_share: float

    def seconds(self, rounds: int) -> float:
        """Return how long a run of so many rounds takes."""
        return self.start + rounds * self.per_round


def measure(plan: SweepPlan, crew: Crew) -> dict[str, Pace]:
    """Play the first rounds of one run of each option, one after the other, and return their pace by option.

    Raises
    ------
    SweepError
        If one of them fails.
    """
    first: dict[str, PlannedRun] = {}
    for run in plan.samples():
        first.setdefault(run.point[plan.file.compared], run)
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        return {option: _measured(run, crew, Path(folder) / str(n)) for n, (option, run) in enumerate(first.items())}


def _measured(run: PlannedRun, crew: Crew, folder: Path) -> Pace:
    crew.begin(Job(run_key(run.flat).whole, run.flat, folder, stop_after=MEASURED))
    while True:
        for event in crew.events():
            if isinstance(event, Died) or (isinstance(event, Outcome) and event.state != COMPLETED):
                raise SweepError(f"{run.name} failed when it was measured: {event.reason}")
            if not isinstance(event, Began):
                seconds = dict(event.series["seconds"])
                start = max(0.0, event.seconds - sum(seconds.values()))
                return Pace(start, seconds[max(seconds)], event.cpu_seconds / max(event.seconds, 1e-9))


def time_lines(plan: SweepPlan, left: Sequence[PlannedRun], paces: Mapping[str, Pace], side_by_side: int) -> list[str]:
    """Return what was measured and how long the runs that are left will take, as lines for a person."""
    compared = plan.file.compared
    option: Callable[[PlannedRun], str] = lambda run: run.point[compared]
    times = [(paces[option(run)], parse(run.flat).num_server_rounds) for run in left]
    total = sum(pace.seconds(rounds) for pace, rounds in times)
    work = sum(pace.seconds(rounds) * pace.cpu_share for pace, rounds in times)
    width = max(map(len, paces), default=0)
    return [
        f"Measured: {MEASURED} rounds of one run of each {compared}, one run at a time.",
        *(f"  {name:<{width}}  {pace.per_round:.2f} s a round" for name, pace in paces.items()),
        f"About {duration(work)} of processor time; with {side_by_side} side by side {duration(total / side_by_side)}.",
    ]
