"""Curves of a sweep: the mean of a measure over the rounds of the runs of each option and setting, and its spread."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from server_app.sweep.database import COMPLETED, FINAL, SEED, SweepRun
from server_app.sweep.results import Comparison, Setting

MOST_POINTS = 60
"""Points of a curve; of more rounds only some are drawn, at even distances, the last among them."""
EARLY = 0.25
"""Share of the rounds whose values do not widen the vertical axis: the rise at the start would hide the differences."""


@dataclass(frozen=True)
class Curve:
    """A measure over the rounds that all of ``runs`` runs recorded; ``deviations`` are zero of one run alone."""

    rounds: tuple[int, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    runs: int

    @property
    def low(self) -> tuple[float, ...]:
        """The mean minus one standard deviation, by round."""
        return tuple(mean - deviation for mean, deviation in zip(self.means, self.deviations, strict=True))

    @property
    def high(self) -> tuple[float, ...]:
        """The mean plus one standard deviation, by round."""
        return tuple(mean + deviation for mean, deviation in zip(self.means, self.deviations, strict=True))


Curves = Mapping[tuple[str, Setting], Curve]


def curves(comparison: Comparison, runs: Iterable[SweepRun]) -> Curves:
    """Return the curve of each option in each setting, of the finished runs that recorded the compared measure."""
    found: dict[tuple[str, Setting], list[dict[int, float]]] = defaultdict(list)
    for run in runs:
        place = _place(comparison, run)
        points = dict(run.series.get(comparison.measure, ()))
        if place and points:
            found[place].append(points)
    drawn = {place: _curve(series) for place, series in found.items()}
    return {place: curve for place, curve in drawn.items() if curve.rounds}


def _place(comparison: Comparison, run: SweepRun) -> tuple[str, Setting] | None:
    """Return the option and setting of a finished run that is compared, else None."""
    if run.state != COMPLETED or run.purpose != FINAL or not {*comparison.axes, SEED} <= run.point.keys():
        return None
    option = run.point.get(comparison.design.compared, "")
    setting = tuple(run.point[axis] for axis in comparison.axes)
    compared = (option, setting) in comparison.cells and run.point[SEED] in comparison.seeds
    return (option, setting) if compared else None


def _curve(series: Sequence[Mapping[int, float]]) -> Curve:
    common = sorted(set.intersection(*(set(points) for points in series)))
    rounds = thinned(common)
    columns = [[points[number] for points in series] for number in rounds]
    deviations = tuple(stdev(column) if len(column) > 1 else 0.0 for column in columns)
    return Curve(tuple(rounds), tuple(map(fmean, columns)), deviations, len(series))


def thinned(rounds: Sequence[int]) -> list[int]:
    """Return at most :data:`MOST_POINTS` of the rounds, the first and the last among them.

    >>> len(thinned(range(1000))), thinned(range(1000))[-2:]
    (60, [982, 999])
    """
    if len(rounds) <= MOST_POINTS:
        return list(rounds)
    step = (len(rounds) - 1) / (MOST_POINTS - 1)
    return [rounds[round(step * place)] for place in range(MOST_POINTS)]


def span(drawn: Iterable[Curve]) -> tuple[float, float]:
    """Return the lowest and highest value that the vertical axis should show, with some room around them."""
    values: list[float] = []
    for curve in drawn:
        start = curve.rounds[0] + EARLY * (curve.rounds[-1] - curve.rounds[0])
        lines = zip(curve.rounds, curve.low, curve.high, strict=True)
        values += [value for number, *both in lines if number >= start for value in both]
    return with_room(values)


def with_room(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of values, a little wider.

    >>> with_room([0.5, 0.9])
    (0.476, 0.924)
    """
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return low - room, high + room
