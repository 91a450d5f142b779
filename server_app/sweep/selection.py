"""Selection of a sweep's runs: those of its design that a ``--where`` lets pass, and the one value of each.

A value is the mean of the last ten evaluated rounds, that of the last one, or that of the round which is best on
validation data. A run without value says why.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from server_app.report.results import AT_CLIENTS, LAST_ROUNDS, NO_MEASURES
from server_app.report.text import counted, single_line
from server_app.sweep import plan
from server_app.sweep.database import (
    BEST,
    COMPLETED,
    FAILED,
    FINAL,
    LAST,
    PENDING,
    STOPPED,
    SweepDesign,
    SweepRun,
)
from tasks.arguments import closest, did_you_mean
from tasks.config import DEFAULTS
from tasks.setting_values import same_value, value_text
from tasks.validation_split import VALIDATION

NOT_ON_TEST_DATA = ("train_", AT_CLIENTS, VALIDATION)


class ResultsError(ValueError):
    """A question that the results cannot answer; the message says what is there, and what to do."""


@dataclass(frozen=True)
class Condition:
    """One word of ``--where``: an axis or a setting has one of these values, or none of them if it is ``negated``."""

    name: str
    values: tuple[str, ...]
    negated: bool = False

    def holds(self, run: SweepRun) -> bool:
        """Tell whether a run fulfils it; numbers are compared as numbers, so ``0.10`` is ``0.1``."""
        return any(same_value(value_of(run, self.name), value) for value in self.values) != self.negated


def parse_condition(word: str) -> Condition:
    """Read ``axis=option``, ``axis=option,option`` or ``axis!=option``.

    Raises
    ------
    ResultsError
        If it is none of these.

    >>> parse_condition("noise!=clean,human")
    Condition(name='noise', values=('clean', 'human'), negated=True)
    """
    name, sign, values = word.partition("=")
    negated = name.endswith("!")
    name = name.removesuffix("!").strip()
    if not sign or not name:
        raise ResultsError(f"--where {word}: expected AXIS=OPTION, AXIS=OPTION,OPTION or AXIS!=OPTION")
    return Condition(name, tuple(value.strip() for value in values.split(",")), negated)


def value_of(run: SweepRun, name: str) -> str:
    """Return a run's option on an axis, or its value of a setting, as text."""
    return value_text(run.point.get(name, run.settings.get(name, DEFAULTS.get(name, ""))))


def runs_of_design(runs: Iterable[SweepRun], design: SweepDesign) -> list[SweepRun]:
    """Return the runs that are compared, in their order: not those that tune, and none of an earlier design."""
    return [
        run
        for run in runs
        if run.purpose == FINAL and all(run.point.get(axis) in options for axis, options in design.axes.items())
    ]


def select(runs: Sequence[SweepRun], design: SweepDesign, conditions: Sequence[Condition]) -> list[SweepRun]:
    """Return the runs that fulfil all conditions.

    Raises
    ------
    ResultsError
        If an axis, a setting or an option is unknown, or nothing is left.
    """
    for condition in conditions:
        _check(condition, runs, design)
    left = [run for run in runs if all(condition.holds(run) for condition in conditions)]
    if not left:
        words = " ".join(f"{one.name}{'!' * one.negated}={','.join(one.values)}" for one in conditions)
        raise ResultsError(f"no run of the sweep matches --where {words}")
    return left


def _check(condition: Condition, runs: Sequence[SweepRun], design: SweepDesign) -> None:
    name = condition.name
    if name not in design.axes and name not in DEFAULTS:
        close = closest(name, design.axes) or closest(name, DEFAULTS)
        hint = f"; did you mean {close!r}?" if close else ";"
        raise ResultsError(f"--where: unknown axis or setting {name!r}{hint} axes: {', '.join(design.axes)}")
    there = list(dict.fromkeys(value_of(run, name) for run in runs))
    for value in condition.values:
        if there and not any(same_value(found, value) for found in there):
            raise ResultsError(f"--where: no run has {name} = {value!r}{did_you_mean(value, there)}")


def check_measure(runs: Iterable[SweepRun], measure: str) -> None:
    """Check that finished runs have recorded a measure.

    Raises
    ------
    ResultsError
        If some run is finished and none has it.
    """
    recorded = {name for run in runs if run.state == COMPLETED for name in run.series}
    if recorded and measure not in recorded:
        known = [name for name in recorded if _on_test_data(name)]
        raise ResultsError(f"no run has recorded the measure {measure!r}{did_you_mean(measure, known)}")


def check_summary(runs: Iterable[SweepRun], summary: str) -> None:
    """Check that every finished run has a round that is best on validation data, if that is the summary.

    Raises
    ------
    ResultsError
        If one has none, because choosing on test data would flatter.
    """
    without = [run for run in runs if run.state == COMPLETED and not chosen_on_validation(run)]
    if summary == BEST and without:
        some = ", ".join(name_of(run) for run in without[:3]) + (", ..." if len(without) > 3 else "")
        count = f"{counted(len(without), 'finished run')} {'has' if len(without) == 1 else 'have'} none ({some})"
        raise ResultsError(
            f"summary = {BEST} takes the test value of the round that is best on validation data, and {count}: use "
            "last or last-ten, or set evaluate.validation and run them again"
        )


def chosen_on_validation(run: SweepRun) -> bool:
    """Tell whether a run has a best round that was not chosen on test data."""
    return run.best_round is not None and any(name.startswith(VALIDATION) for name in run.series)


def name_of(run: SweepRun) -> str:
    """Return how a run is called: its options, such as ``winnow, clean, seed 1``."""
    return plan.name_of(run.point)


def run_value(run: SweepRun, measure: str, summary: str) -> tuple[float | None, str]:
    """Return what counts of a run, or None and why there is nothing."""
    if run.state != COMPLETED:
        return None, why_unfinished(run)
    values = dict(run.series.get(measure, ()))
    if summary == BEST:
        wanted = [run.best_round] if run.best_round is not None else []
    else:
        wanted = list(evaluated_rounds(run))[-1 if summary == LAST else -LAST_ROUNDS :]
    absent = [number for number in wanted if number not in values]
    if absent or not wanted:
        where = f"in round {absent[0]}" if absent else "after training began"
        return None, f"has no {measure} {where}: it was not finite, or not measured"
    return fmean(values[number] for number in wanted), ""


def evaluated_rounds(run: SweepRun) -> tuple[int, ...]:
    """Return the rounds after training began in which the model was measured on test data."""
    found = {number for name, points in run.series.items() if _on_test_data(name) for number, _ in points if number}
    return tuple(sorted(found))


def _on_test_data(name: str) -> bool:
    return name not in NO_MEASURES and not name.startswith(NOT_ON_TEST_DATA)


def why_unfinished(run: SweepRun) -> str:
    """Say why a run has no results."""
    reason = f": {single_line(run.reason.strip().splitlines()[0], 160)}" if run.reason.strip() else ""
    words = {FAILED: "failed", STOPPED: "was stopped", PENDING: "has not started"}.get(run.state, f"is {run.state}")
    again = f" {run.attempts} times" if run.state == FAILED and run.attempts > 1 else ""
    return f"{words}{again}{reason}"
