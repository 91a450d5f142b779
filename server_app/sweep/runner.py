"""Runner of a sweep: plays what is not finished, keeps what comes out in the database, repeats once what crashed."""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from server_app.report.results import NO_MEASURES, aligned
from server_app.report.text import duration, measure_value, roughly
from server_app.sweep.crew import Crew, Died
from server_app.sweep.database import COMPLETED, FAILED, FINAL, PENDING, RUNNING, TUNING, SweepDatabase, SweepError
from server_app.sweep.ledger import Entries, Entry, Ledger
from server_app.sweep.plan import PlannedRun, SweepPlan
from server_app.sweep.player import LOG, Began, Job, Outcome
from server_app.sweep.tuning import chosen_settings
from server_app.sweep.tuning_table import tuning_note, tuning_rows
from tasks.config import Flat
from tasks.plugins import did_you_mean
from tasks.validation_split import VALIDATION

ATTEMPTS = 2
RUNS = "runs"
"""Folder of the run directories in a sweep's folder; each is named by so many characters of the run's key."""
SHORT = 12


@dataclass
class Pace:
    """How long runs take, by the option that is compared; how many are done, of how many."""

    total: int
    done: int = 0
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def left(self, waiting: Sequence[str], side_by_side: int) -> float:
        """Return how many seconds the runs of the options that are ``waiting`` will take, once one run is done."""
        usual = mean([each for own in self.seconds.values() for each in own])
        return sum(mean(self.seconds[option] or [usual]) for option in waiting) / side_by_side


class SweepRunner:
    """Plays a plan in a sweep's folder.

    Parameters
    ----------
    crew
        Makes those who play, once there is something to play; the caller closes them.
    say
        Takes each line for the user.
    advance
        Takes how many runs are done, of how many, and about how many seconds are left (None: not known yet).
    """

    def __init__(
        self,
        plan: SweepPlan,
        folder: Path,
        database: SweepDatabase,
        ledger: Ledger,
        crew: Callable[[], Crew],
        say: Callable[[str], None],
        advance: Callable[[int, int, float | None], None] = lambda done, total, left: None,
    ) -> None:
        self._plan, self._folder, self._database, self._ledger, self._say = plan, folder, database, ledger, say
        self._crew, self._advance = crew, advance
        self._pace = Pace(0)
        self.failed: list[tuple[str, str]] = []

    def run(self) -> list[tuple[str, str]]:
        """Play all that is not finished; return the names of the runs that failed, each with the reason.

        Raises
        ------
        SweepError
            If nothing can be written any more, or nothing can be chosen by tuning.
        """
        tuning_runs, final_runs = self._plan.tuning_runs(), self._plan.final_runs()
        self._pace = Pace(len(tuning_runs) + len(final_runs))
        self._play(self._ledger.enter(tuning_runs, TUNING), [self._option(run) for run in final_runs])
        tuned = self._choose() if tuning_runs else {}
        self._play(self._ledger.enter(self._plan.final_runs(tuned), FINAL), [])
        return self.failed

    def _choose(self) -> Mapping[tuple[str, ...], Flat]:
        """Choose settings by the tuning runs, and keep what was chosen in the database."""
        rows = [row for row in self._database.runs() if row.purpose == TUNING]
        tuned, record = chosen_settings(self._plan, rows)
        design = replace(self._plan.design(), tuning=record)
        self._database.write_design(design)
        self._say(f"{tuning_note(design)}\n{aligned(tuning_rows(design))}")
        return tuned

    def _option(self, run: PlannedRun) -> str:
        return run.point[self._plan.file.compared]

    def _play(self, entries: Entries, later: Sequence[str]) -> None:
        """Play the runs that are not finished; ``later`` are the options of the runs that come after them."""
        if entries.older:
            self._say(entries.of_older_code())
        waiting = deque(entries.left())
        self._pace.done += len(entries.entries) - len(waiting)
        self._advance(self._pace.done, self._pace.total, None)
        running: dict[str, Entry] = {}
        crew = self._crew() if waiting else None
        try:
            while crew is not None and (waiting or running):
                while waiting and crew.free():
                    self._begin(crew, waiting.popleft(), running)
                for event in crew.events():
                    if not isinstance(event, Began):
                        others = (*waiting, *(entry for key, entry in running.items() if key != event.key))
                        ahead = [*(self._option(entry.planned) for entry in others), *later]
                        waiting.extend(self._ended(running[event.key], event, ahead, crew.size))
                        del running[event.key]
        finally:
            with suppress(SweepError):
                self._database.interrupt()

    def _begin(self, crew: Crew, entry: Entry, running: dict[str, Entry]) -> None:
        """Begin a run, and add it, as it stands now, to those that are ``running``."""
        row = entry.row
        row = replace(row, state=RUNNING, attempts=row.attempts + 1, folder=f"{RUNS}/{row.key[:SHORT]}")
        running[row.key] = replace(entry, row=row)
        self._database.update(row.key, state=RUNNING, attempts=row.attempts, folder=row.folder)
        crew.begin(Job(row.key, entry.planned.flat, self._folder / row.folder, entry.planned.checkpoints))

    def _ended(self, entry: Entry, event: Outcome | Died, ahead: Sequence[str], side_by_side: int) -> list[Entry]:
        """Keep how a run ended, and say it; returns the run if it is to be repeated.

        ``ahead`` are the options of the runs that are not done, of which so many are played ``side_by_side``.

        Raises
        ------
        SweepError
            If the disk is full.
        """
        if isinstance(event, Outcome) and event.stops_all:
            raise SweepError(f"{event.reason}; what is finished is kept, so free some room and start the sweep again")
        if isinstance(event, Outcome) and event.state == COMPLETED:
            self._finished(entry, event, ahead, side_by_side)
            return []
        row, name = entry.row, entry.planned.name
        if row.attempts < ATTEMPTS:
            self._database.update(row.key, state=PENDING, reason=event.reason)
            self._say(f"{name} failed and is repeated once: {event.reason}")
            return [entry]
        changes = _recorded(event) if isinstance(event, Outcome) else {}
        self._database.update(row.key, **{**changes, "state": FAILED, "reason": event.reason})
        self._say(f"{name} FAILED again: {event.reason}; what it printed: {self._folder / row.folder / LOG}")
        self.failed.append((name, event.reason))
        self._pace.done += 1
        self._advance(self._pace.done, self._pace.total, None)
        return []

    def _finished(self, entry: Entry, outcome: Outcome, ahead: Sequence[str], side_by_side: int) -> None:
        if self._plan.file.measure not in outcome.series:
            raise SweepError(f"measure = {unmeasured(self._plan.file.measure, outcome)}")
        self._database.update(entry.row.key, outcome.series, **_recorded(outcome), state=COMPLETED, reason="")
        pace = self._pace
        pace.done += 1
        pace.seconds[self._option(entry.planned)].append(outcome.seconds)
        what = VALIDATION + self._plan.file.measure  # who watches a sweep must not choose by what it is judged by
        points = outcome.series.get(what, ())
        value = f"{what.replace('_', ' ')} {measure_value(self._plan.file.measure, points[-1][1])} " if points else ""
        kind = "tuning " if entry.planned.purpose == TUNING else ""
        place = f"[{pace.done:>{len(str(pace.total))}}/{pace.total}]"
        seconds = pace.left(ahead, side_by_side) if ahead else 0.0
        left = f"  about {roughly(seconds)} left" if ahead else ""
        self._say(f"{place} {kind}{entry.planned.name}: {value}after {duration(outcome.seconds)}{left}")
        self._advance(pace.done, pace.total, seconds)


def unmeasured(measure: str, outcome: Outcome) -> str:
    """Say that no run has a measure, and which there are."""
    known = [name for name in outcome.series if name not in NO_MEASURES]
    return f"{measure!r}: the runs have no such measure{did_you_mean(measure, known)}"


def _recorded(outcome: Outcome) -> dict[str, Any]:
    """Return what the database keeps of a run beside its measures and how it ended."""
    names = ("started", "seconds", "cpu_seconds", "best_round", "versions")
    return {name: getattr(outcome, name) for name in names}
