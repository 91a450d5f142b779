"""Values of a sweep as an array (options, settings, seeds), with the names along its sides and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server_app.report.reading import lower_is_better
from server_app.sweep.database import SEED, SweepDesign, SweepRun
from server_app.sweep.results import MissingRun, Setting
from server_app.sweep.selection import run_value, value_of
from server_app.sweep.statistics import Doubles

Pair = tuple[int, int]
"""Places of an option and of the one it is compared with."""


@dataclass(frozen=True)
class ValueGrid:
    """The values (options, settings, seeds) of a table; NaN where there is none.

    ``planned`` has the places of all runs that were asked for, ``missing`` the runs without value.
    """

    options: tuple[str, ...]
    settings: tuple[Setting, ...]
    seeds: tuple[str, ...]
    values: Doubles
    planned: frozenset[tuple[str, Setting, str]]
    missing: tuple[MissingRun, ...]
    lower_is_better: bool

    def means(self) -> Doubles:
        """Return the mean of each cell over its seeds, (options, settings); NaN for an empty one."""
        there = ~np.isnan(self.values)
        sums, counts = np.where(there, self.values, 0.0).sum(2), there.sum(2)
        means: Doubles = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        return means

    def complete(self) -> list[int]:
        """Return the options that have a mean in every setting."""
        return [option for option, means in enumerate(self.means()) if not np.isnan(means).any()]

    def seed_means(self) -> Doubles:
        """Return each option's mean over the settings, (options, seeds); NaN where a setting has no value."""
        means: Doubles = self.values.mean(1)
        return means

    def differences(self, pair: Pair) -> Doubles:
        """Return what the first option has more than the second, (settings, seeds); NaN where one has no value."""
        difference: Doubles = self.values[pair[0]] - self.values[pair[1]]
        return difference

    def best(self, means: Doubles) -> int | None:
        """Return the option with the best of ``means`` (options,), the first of equals; None if all are NaN."""
        if np.isnan(means).all():
            return None
        return int(np.nanargmin(means) if self.lower_is_better else np.nanargmax(means))

    def missing_seeds(self, option: str, setting: Setting) -> tuple[str, ...]:
        """Return the seeds whose run of a cell is planned and has no value."""
        place, row = self.options.index(option), self.settings.index(setting)
        empty = [seed for seed, value in zip(self.seeds, self.values[place, row], strict=True) if np.isnan(value)]
        return tuple(seed for seed in empty if (option, setting, seed) in self.planned)


def value_grid(design: SweepDesign, runs: Sequence[SweepRun], measure: str, summary: str) -> ValueGrid:
    """Put the values of runs in the order of the design; what has no run is left out."""
    axes = setting_axes(design)
    places = [
        (run.point[design.compared], tuple(run.point[axis] for axis in axes), value_of(run, SEED)) for run in runs
    ]
    options = _in_order(design.axes[design.compared], {option for option, _, _ in places})
    order = [design.axes[axis].index for axis in axes]
    settings = sorted(
        {setting for _, setting, _ in places},
        key=lambda setting: [place(option) for place, option in zip(order, setting, strict=True)],
    )
    present = {seed for _, _, seed in places}
    seeds = _in_order(design.axes.get(SEED, sorted(present)), present)
    values = np.full((len(options), len(settings), len(seeds)), np.nan)
    missing = []
    for run, (option, setting, seed) in zip(runs, places, strict=True):
        value, why = run_value(run, measure, summary)
        if value is None:
            missing.append(MissingRun(run, why))
        else:
            values[options.index(option), settings.index(setting), seeds.index(seed)] = value
    return ValueGrid(
        options, tuple(settings), seeds, values, frozenset(places), tuple(missing), lower_is_better(measure)
    )


def setting_axes(design: SweepDesign) -> tuple[str, ...]:
    """Return the axes that make up a setting: all but the compared one and the seed."""
    return tuple(axis for axis in design.axes if axis not in (design.compared, SEED))


def _in_order(known: Sequence[str], present: set[str]) -> tuple[str, ...]:
    return tuple(option for option in known if option in present)
