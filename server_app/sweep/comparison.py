"""Comparison of a sweep's options: each against the best and against the baseline, in every setting and over all.

Which option is best is chosen from the same numbers, by mean, so any two could have been compared: Holm's correction of
differences from the best counts all pairs of options. What is compared with the baseline is known beforehand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from server_app.sweep.database import SweepDesign, SweepRun
from server_app.sweep.families import TestedFamily, tested_family
from server_app.sweep.notes import findings, notes
from server_app.sweep.ranking import agreement, first_shares, ranks
from server_app.sweep.results import BEST_MARK, NOT_WORSE, Comparison, Families, Score, Setting, Stability
from server_app.sweep.selection import Condition, ResultsError, check_measure, check_summary, runs_of_design, select
from server_app.sweep.statistics import Doubles, interval
from server_app.sweep.values import ValueGrid, setting_axes, value_grid
from tasks.plugins import did_you_mean


def compare(
    design: SweepDesign,
    runs: Sequence[SweepRun],
    where: Sequence[Condition] = (),
    measure: str = "",
    summary: str = "",
    baseline: str = "",
) -> Comparison:
    """Return the table of a sweep; measure, summary and baseline are those of the design unless others are given.

    Raises
    ------
    ResultsError
        If ``where``, measure or baseline name what is not there, nothing is left, or a summary is not defined.
    """
    measure, summary = measure or design.measure, summary or design.summary
    chosen = select(runs_of_design(runs, design), design, where)
    check_measure(chosen, measure)
    check_summary(chosen, summary)
    grid = value_grid(design, chosen, measure, summary)
    reference = _baseline(design, grid, baseline)
    base = grid.options.index(reference) if reference else None
    cell_tests = _tests(grid, base, list(range(len(grid.settings))))
    overall_tests = _tests(grid, base, [None])
    complete = grid.complete()
    complete_ranks = ranks(grid.means()[complete], grid.lower_is_better)
    found = Comparison(
        design=design,
        measure=measure,
        summary=summary,
        baseline=reference,
        lower_is_better=grid.lower_is_better,
        options=grid.options,
        axes=setting_axes(design),
        settings=grid.settings,
        seeds=grid.seeds,
        cells=_cells(grid, cell_tests),
        overall=_overall(grid, overall_tests, dict(zip(complete, complete_ranks.mean(1), strict=True))),
        stability=_stability(grid, complete),
        agreement=agreement(complete_ranks),
        families=Families(
            cell_tests.best.family, cell_tests.baseline.family, overall_tests.best.family, overall_tests.baseline.family
        ),
        missing=grid.missing,
        runs=tuple(chosen),
    )
    return replace(found, notes=notes(found), findings=findings(found))


def _baseline(design: SweepDesign, grid: ValueGrid, wanted: str) -> str:
    if wanted and wanted not in grid.options:
        raise ResultsError(f"--baseline: no {design.compared} {wanted!r}{did_you_mean(wanted, grid.options)}")
    return wanted or (design.baseline if design.baseline in grid.options else "")


@dataclass(frozen=True)
class _Tests:
    """The tests of a part of the table: of all pairs of options, and of each against the baseline (its place)."""

    base: int | None
    best: TestedFamily
    baseline: TestedFamily


def _tests(grid: ValueGrid, base: int | None, settings: Sequence[int | None]) -> _Tests:
    options = range(len(grid.options))
    pairs = list(combinations(options, 2))
    against = [(option, base) for option in options if base is not None and option != base]
    return _Tests(
        base, tested_family(grid, list(product(pairs, settings))), tested_family(grid, list(product(against, settings)))
    )


def _cells(grid: ValueGrid, tests: _Tests) -> dict[tuple[str, Setting], Score]:
    means = grid.means()
    cell_ranks = ranks(means, grid.lower_is_better)
    cells = {}
    for (place, option), (row, setting) in product(enumerate(grid.options), enumerate(grid.settings)):
        if any((option, setting, seed) in grid.planned for seed in grid.seeds):
            score = _score(grid.seeds, grid.values[place, row], means[place, row], cell_ranks[place, row])
            score = replace(score, missing=grid.missing_seeds(option, setting))
            cells[option, setting] = _tested(score, tests, place, grid.best(means[:, row]), row)
    return cells


def _overall(grid: ValueGrid, tests: _Tests, mean_ranks: Mapping[int, float]) -> dict[str, Score]:
    """Return the scores over all settings; the mean is that of the seeds that have a value in every setting."""
    values = grid.seed_means()
    means = np.array([line[~np.isnan(line)].mean() if not np.isnan(line).all() else np.nan for line in values])
    scores = {}
    for place, option in enumerate(grid.options):
        score = _score(grid.seeds, values[place], means[place], mean_ranks.get(place, np.nan))
        missing = set().union(*(grid.missing_seeds(option, setting) for setting in grid.settings))
        score = replace(score, missing=tuple(seed for seed in grid.seeds if seed in missing))
        scores[option] = _tested(score, tests, place, grid.best(means), None)
    return scores


def _score(seeds: Sequence[str], values: Doubles, mean: float, rank: float) -> Score:
    there = {seed: float(value) for seed, value in zip(seeds, values, strict=True) if not np.isnan(value)}
    sample = np.array(list(there.values()))
    return Score(
        values=there,
        mean=float(mean) if there else None,
        deviation=float(sample.std(ddof=1)) if len(sample) > 1 else None,
        interval=interval(sample),
        rank=None if np.isnan(rank) else float(rank),
    )


def _tested(score: Score, tests: _Tests, place: int, best: int | None, row: int | None) -> Score:
    """Return the score with its differences from the best option and the baseline, and its mark."""
    if best is None or score.mean is None:
        return score
    from_best = tests.best.seen_from((place, best), row)
    from_base = None if tests.base is None else tests.baseline.seen_from((place, tests.base), row)
    told = from_best is not None and from_best.p is not None and tests.best.family.can_be_significant
    mark = BEST_MARK if place == best else NOT_WORSE if told and from_best and not from_best.verdict else ""
    return replace(score, mark=mark, against_best=from_best, against_baseline=from_base)


def _stability(grid: ValueGrid, complete: list[int]) -> dict[str, Stability]:
    """Return how firm the first rank is, of the options with all settings and the seeds that they all have."""
    values = grid.values[complete]
    values = values[:, :, ~np.isnan(values).any((0, 1))]
    seeds = first_shares(values, grid.lower_is_better)
    both = first_shares(values, grid.lower_is_better, also_settings=True)
    if seeds is None or both is None or len(complete) < 2:
        return {}
    names = [grid.options[place] for place in complete]
    return {name: Stability(float(one), float(two)) for name, one, two in zip(names, seeds, both, strict=True)}
