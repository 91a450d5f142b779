"""Results of a sweep: a table of options x settings with means, intervals, paired tests, ranks and marks."""

from collections.abc import Mapping
from dataclasses import dataclass

from server_app.sweep.database import SweepDesign, SweepRun
from server_app.sweep.statistics import LEVEL, smallest_p

Setting = tuple[str, ...]
"""The options on all axes but the compared one and the seed, in the order of the design; empty without other axes."""
Interval = tuple[float, float]
BETTER, WORSE = "better", "worse"
BEST_MARK, NOT_WORSE = "best", "not-worse"


@dataclass(frozen=True)
class Difference:
    """An option compared with another one, in pairs of runs that differ in nothing else.

    Attributes
    ----------
    pairs
        Runs of both in the same setting with the same seed.
    mean
        Mean over the pairs of the option's value minus the reference's; ``interval`` covers it with 95 %.
    p
        Of the two-sided test, before correction; None with fewer than two pairs. ``adjusted`` is it after Holm's
        correction over all comparisons of its kind in the table.
    verdict
        ``better`` or ``worse`` than the reference if the adjusted p is at most 0.05, else empty.
    """

    reference: str
    pairs: int
    mean: float | None = None
    interval: Interval | None = None
    p: float | None = None
    adjusted: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Score:
    """An option in one setting, or over all settings.

    Attributes
    ----------
    values
        What the runs reached, by seed; over all settings: means of the settings, of seeds that have a value in each.
    missing
        Seeds whose run is planned and has no value (yet).
    mean, deviation, interval
        Over the seeds; the standard deviation is that of a sample (n - 1), the interval covers the mean with 95 %.
    rank
        1 for the best mean in the setting, ties share; over all settings the mean of these ranks.
    mark
        ``best`` by mean; ``not-worse`` if it differs from the best one by no more than chance explains, given only
        where a difference could be significant; else empty.
    """

    values: Mapping[str, float]
    missing: tuple[str, ...] = ()
    mean: float | None = None
    deviation: float | None = None
    interval: Interval | None = None
    rank: float | None = None
    mark: str = ""
    against_best: Difference | None = None
    against_baseline: Difference | None = None


@dataclass(frozen=True)
class Family:
    """Comparisons whose p values are corrected together: how many, and the most pairs that one of them has."""

    comparisons: int
    pairs: int

    @property
    def smallest_p(self) -> float:
        """The smallest p that the tests can give, before correction."""
        return smallest_p(self.pairs)

    @property
    def can_be_significant(self) -> bool:
        """Whether any difference could be, with so few pairs and so many comparisons."""
        return self.comparisons > 0 and self.comparisons * self.smallest_p <= LEVEL


@dataclass(frozen=True)
class Families:
    """The four families of a table: differences in single settings and over all, from the best and the baseline."""

    cells_best: Family
    cells_baseline: Family
    overall_best: Family
    overall_baseline: Family


@dataclass(frozen=True)
class Stability:
    """How often an option has the first mean rank when seeds, or seeds and settings, are drawn again (bootstrap)."""

    seeds: float
    seeds_and_settings: float


@dataclass(frozen=True)
class MissingRun:
    """A run of the design without a value, and why: it failed, was stopped, is running or waits."""

    run: SweepRun
    why: str


@dataclass(frozen=True)
class Comparison:
    """What a sweep found.

    Attributes
    ----------
    options
        Those compared, in the order of the design; ``axes`` are the names that make up a setting.
    cells
        Scores by (option, setting); absent where no run was planned.
    overall
        Scores over all settings by option; without mean where the option lacks a setting.
    agreement
        Kendall's W of the settings' rankings: 1 = the same order everywhere, 0 = none; None with fewer than two.
    runs
        All runs of the table, those without value too.
    findings
        What the table says over all settings, in sentences that the tests support.
    notes
        What must be read with the table: measure, summary, seeds, tests, correction, what cannot be significant.
    """

    design: SweepDesign
    measure: str
    summary: str
    baseline: str
    lower_is_better: bool
    options: tuple[str, ...]
    axes: tuple[str, ...]
    settings: tuple[Setting, ...]
    seeds: tuple[str, ...]
    cells: Mapping[tuple[str, Setting], Score]
    overall: Mapping[str, Score]
    stability: Mapping[str, Stability]
    agreement: float | None
    families: Families
    missing: tuple[MissingRun, ...]
    runs: tuple[SweepRun, ...]
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    def title(self, setting: Setting) -> str:
        """Return the heading of a setting: its options, with the names of the axes where there are several."""
        if len(self.axes) < 2:
            return setting[0] if setting else "all runs"
        return ", ".join(f"{axis} {option}" for axis, option in zip(self.axes, setting, strict=True))
