"""Plan of a sweep: the runs that a sweep file stands for, each with its options and all of its settings."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from server_app.cli.config import absolute_paths
from server_app.sweep.database import FINAL, SEED, TUNING, SweepDesign, label
from server_app.sweep.file import Match, SweepFile, SweepFileError, TuneTable, read_sweep
from tasks.config import DEFAULTS, Flat, overlay

QUIET: Flat = {"audit.enabled": False}
"""Below all of a sweep's settings: nobody reads the lists of hundreds of runs."""
CHECKPOINTS = "run.checkpoint-every"
Point = Mapping[str, str]


@dataclass(frozen=True)
class PlannedRun:
    """A run of the plan: its options by axis, its settings, whether it is ``final`` or ``tuning``.

    It writes ``checkpoints`` if the file says how often: then it can be interrupted between its rounds.
    """

    point: Point
    flat: Flat
    purpose: str = FINAL
    checkpoints: bool = False

    @property
    def name(self) -> str:
        """Its options, as a person reads them: ``winnow, 0-0.8, seed 3``."""
        return name_of(self.point)


def name_of(point: Point) -> str:
    """Return options as a person reads them.

    >>> name_of({"method": "winnow", "noise": "0-0.8", "seed": "3", "train.learning-rate": "0.1"})
    'winnow, 0-0.8, seed 3, train.learning-rate 0.1'
    """
    plain = [f"{axis} {option}" if axis == SEED or "." in axis else option for axis, option in point.items()]
    return ", ".join(plain)


class SweepPlan:
    """What a sweep file stands for.

    Parameters
    ----------
    file
        As it was read.
    path
        Where it was read from, for messages.
    cwd
        The folder in which the paths of settings begin.

    Raises
    ------
    SweepFileError
        If ``exclude`` names what no run has, or leaves nothing.
    """

    def __init__(self, file: SweepFile, path: Path, cwd: Path) -> None:
        self.file, self._path, self._cwd = file, path, cwd
        self.points = [point for point in self._all_points() if not self._excluded(point)]
        self.excluded = len(list(self._all_points())) - len(self.points)
        self._check()

    @classmethod
    def read(cls, path: Path, cwd: Path) -> "SweepPlan":
        """Return the plan of a file.

        Raises
        ------
        CommandError
            If it cannot be read, with all that is wrong with it.
        """
        return cls(read_sweep(path), path, cwd)

    def design(self) -> SweepDesign:
        """Return what is compared, before anything is tuned."""
        file = self.file
        return SweepDesign(
            name=file.name,
            axes={axis: tuple(options) for axis, options in file.axes.items()},
            compared=file.compared,
            baseline=file.baseline,
            measure=file.measure,
            summary=file.summary,
            note=file.note,
            tags=file.tags,
            tuning={} if file.tune is None else describe_tuning(file.tune),
        )

    def settings(self, point: Point, *above: Flat) -> Flat:
        """Return all settings of a run: those of its options, in the order of the axes, and ``above`` them others."""
        flat = overlay(DEFAULTS, QUIET, *self._layers(point), *above)
        return {**absolute_paths(flat, self._cwd), "variants": "", "run.output-dir": "", "run.resume": ""}

    def _layers(self, point: Point) -> list[Flat]:
        options = self.file.axes.items()
        return [*self.file.layers, *(known[point[axis]] for axis, known in options if point[axis] in known)]

    def _planned(self, point: Point, flat: Flat, purpose: str = FINAL) -> PlannedRun:
        return PlannedRun(point, flat, purpose, any(CHECKPOINTS in layer for layer in self._layers(point)))

    def final_runs(self, tuned: Mapping[tuple[str, ...], Flat] | None = None) -> list[PlannedRun]:
        """Return the runs that are compared, one repetition of all after the other.

        ``tuned`` are the chosen settings by option, or by option and setting; see :meth:`tuned_for`.
        """
        chosen = tuned or {}
        return [self._planned(point, self.settings(point, self.tuned_for(point, chosen))) for point in self.points]

    def tuned_for(self, point: Point, tuned: Mapping[tuple[str, ...], Flat]) -> Flat:
        """Return what was chosen for a run."""
        return tuned.get(self.group(point, True), tuned.get(self.group(point, False), {}))

    def group(self, point: Point, with_setting: bool) -> tuple[str, ...]:
        """Return the option that is compared, ``with_setting`` with those on all other axes but the seed."""
        others = [axis for axis in self.file.axes if axis not in (self.file.compared, SEED)] if with_setting else []
        return (point[self.file.compared], *(point[axis] for axis in others))

    def tuning_runs(self) -> list[PlannedRun]:
        """Return the runs that choose settings: each option with all values tried, the same number for all."""
        tune = self.file.tune
        if tune is None:
            return []
        settings = [point for point in self._first_seed() if _matches(point, tune.only)]
        found = []
        for seed, values in product(tune.seeds, product(*tune.keys.values())):
            tried: Flat = dict(zip(tune.keys, values, strict=True))
            labels = {key: label(value) for key, value in tried.items()}
            for point in settings:
                flat = self.settings(point, tune.common, {**tried, SEED: seed})
                found.append(self._planned({**point, SEED: label(seed), **labels}, flat, TUNING))
        return found

    def _first_seed(self) -> list[Point]:
        """Return one point of each option in each setting."""
        seen: dict[tuple[str, ...], Point] = {}
        for point in self.points:
            seen.setdefault(self.group(point, True), point)
        return list(seen.values())

    def samples(self) -> list[PlannedRun]:
        """Return one run of each option in each setting: those that differ from others in more than the seed."""
        return [self._planned(point, self.settings(point)) for point in self._first_seed()]

    def _all_points(self) -> Iterator[dict[str, str]]:
        axes = self.file.axes
        for seed in axes[SEED]:
            for options in product(*(axes[axis] for axis in axes if axis != SEED)):
                yield dict(zip(axes, (*options, seed), strict=True))

    def _excluded(self, point: Point) -> bool:
        return any(_matches(point, match) for match in self.file.exclude)

    def _check(self) -> None:
        problems = [
            f"exclude[{number}]: no run has all of these options together"
            for number, match in enumerate(self.file.exclude, 1)
            if not any(_matches(point, match) for point in self._all_points())
        ]
        if not self.points:
            problems.append("exclude leaves no run")
        tune = self.file.tune
        if tune is not None and self.points:
            options = {self.group(point, False) for point in self.points}
            met = {self.group(point, False) for point in self._first_seed() if _matches(point, tune.only)}
            problems += [f"tune.only: no run of {', '.join(each)} is left to tune by" for each in sorted(options - met)]
        if problems:
            raise SweepFileError(self._path, problems)


def describe_tuning(tune: TuneTable) -> dict[str, object]:
    """Return what was tuned, as the database keeps it."""
    return {
        "keys": {key: [label(value) for value in values] for key, values in tune.keys.items()},
        "seeds": [label(seed) for seed in tune.seeds],
        "choose": tune.choose,
        "only": {axis: list(options) for axis, options in tune.only.items()},
        "common": dict(tune.common),
    }


def _matches(point: Point, match: Match) -> bool:
    return all(point[axis] in options for axis, options in match.items())


def alike(runs: Iterable[tuple[PlannedRun, str]]) -> list[str]:
    """Return a line for each two runs that have one key: they differ in nothing that counts."""
    seen: dict[str, PlannedRun] = {}
    problems = []
    for run, key in runs:
        other = seen.setdefault(key, run)
        if other is not run:
            problems.append(f"two runs are alike: {other.name}  and  {run.name}; take one out, or let them differ")
    return problems
