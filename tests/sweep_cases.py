"""Synthetic sweeps: a database of finished runs whose measures have effects that are known exactly."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from server_app.sweep.database import COMPLETED, FAILED, PENDING, Series, SweepDatabase, SweepDesign, SweepRun
from tasks.seeds import rng

EFFECTS = {"fedavg": 0.70, "winnow": 0.80, "median": 0.74}
"""Accuracy at the end of a run of each method, without noise of the labels."""
COSTS = {"clean": 0.0, "symmetric": 0.10, "asymmetric": 0.15}
"""Accuracy that each kind of label noise takes."""


def design_of(
    methods: Sequence[str] = tuple(EFFECTS), noises: Sequence[str] = tuple(COSTS), seeds: int = 5, **changes: object
) -> SweepDesign:
    """The design methods x noises x seeds; the baseline is the first method."""
    axes = {"method": tuple(methods), "noise": tuple(noises), "seed": tuple(str(1 + seed) for seed in range(seeds))}
    values: dict[str, object] = {"name": "digits", "axes": axes, "compared": "method", "baseline": methods[0]}
    return SweepDesign(**{**values, **changes})  # type: ignore[arg-type]


def curve(end: float, rounds: int, wobble: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Accuracy that rises from 0.1 at round 0 and stays at ``end`` plus the wobble (rounds + 1,) from half time on."""
    share = np.minimum(2 * np.arange(rounds + 1) / rounds, 1.0)
    values = np.clip(0.1 + share * (end - 0.1) + wobble, 0, 1)
    return tuple((number, float(value)) for number, value in enumerate(values))


def series_of(end: float, rounds: int, deviation: float, seed: int, *names: str) -> Series:
    """Accuracy and loss on test and validation data; the end differs by ``deviation`` from seed to seed."""
    random = rng(seed, "sweep-case", *names)
    end += deviation * random.standard_normal()
    test, validation = (curve(end, rounds, 0.002 * random.standard_normal(rounds + 1)) for _ in range(2))
    return {
        "accuracy": test,
        "loss": tuple((number, 2 - value) for number, value in test),
        "validation_accuracy": validation,
        "validation_loss": tuple((number, 2 - value) for number, value in validation),
    }


def run_of(place: int, point: Mapping[str, str], series: Series, **changes: object) -> SweepRun:
    """A finished run with these measures."""
    scores = series.get("validation_accuracy", ())
    values: dict[str, object] = {
        "key": f"{place:064x}",
        "place": place,
        "point": point,
        "settings": {"noise.name": point.get("noise", "none"), "seed": int(point.get("seed", 1))},
        "state": COMPLETED,
        "attempts": 1,
        "folder": f"runs/{place:012x}",
        "started": "2026-01-31T10:15:00+00:00",
        "seconds": 12.0 + place % 7,
        "cpu_seconds": 10.0 + place % 7,
        "best_round": max(scores, key=lambda point: point[1])[0] if scores else None,
        "versions": {"winnow": "0.1.0", "torch": "2.9.0"},
        "series": series,
    }
    return SweepRun(**{**values, **changes})  # type: ignore[arg-type]


def synthetic_runs(
    design: SweepDesign,
    effects: Mapping[str, float] = EFFECTS,
    costs: Mapping[str, float] = COSTS,
    rounds: int = 20,
    deviation: float = 0.01,
) -> list[SweepRun]:
    """Finished runs of all points of a design with the axes method, noise and seed."""
    points = [dict(zip(design.axes, options, strict=True)) for options in product(*design.axes.values())]
    ends = [effects[point["method"]] - costs[point["noise"]] for point in points]
    series = [
        series_of(end, rounds, deviation, int(point["seed"]), point["method"], point["noise"])
        for end, point in zip(ends, points, strict=True)
    ]
    return [run_of(place, point, own) for place, (point, own) in enumerate(zip(points, series, strict=True))]


def failed(run: SweepRun, reason: str = "DivergedError: the loss is not finite") -> SweepRun:
    """The same run, had it failed."""
    return run_of(run.place, run.point, {}, state=FAILED, attempts=2, reason=reason, seconds=None, cpu_seconds=None)


def pending(run: SweepRun) -> SweepRun:
    """The same run before it starts."""
    blank = {"attempts": 0, "folder": "", "started": "", "seconds": None, "cpu_seconds": None, "versions": {}}
    return run_of(run.place, run.point, {}, state=PENDING, **blank)


def write_sweep(folder: Path, design: SweepDesign, runs: Sequence[SweepRun]) -> Path:
    """Write the database of these runs into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    database = SweepDatabase(folder, design)
    database.add(runs)
    for run in runs:
        database.update(run.key, run.series)
    database.close()
    return folder
