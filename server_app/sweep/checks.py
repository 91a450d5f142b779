"""Checks of a sweep before any run begins: all errors of all runs at once, each with the runs that have it."""

from collections.abc import Iterable
from dataclasses import replace

from server_app.sweep.database import BEST
from server_app.sweep.plan import PlannedRun, SweepPlan
from server_app.validation.config import validate
from tasks.client_data import place_of_validation
from tasks.config import ConfigError, parse
from tasks.issues import ERROR, Issue
from tasks.protocol import Mode
from tasks.validation_split import NOWHERE

VALIDATION = "evaluate.validation"
NO_EFFECT = "has no effect"
"""Of a setting that the options of an axis set: with some options of another axis that is no mistake."""
NAMED = 3
"""Runs that a message names."""


def check_runs(plan: SweepPlan) -> list[Issue]:
    """Return the warnings about the runs of a plan, after building every part of those that differ in more than seeds.

    Of tuning runs all values are tried with the parts, each with the first setting.

    Raises
    ------
    ConfigError
        With every error of any run.
    """
    samples = plan.samples()
    first: dict[tuple[str, ...], PlannedRun] = {}
    keys = () if plan.file.tune is None else tuple(plan.file.tune.keys)
    for run in plan.tuning_runs():
        first.setdefault((*plan.group(run.point, False), *(run.point[key] for key in keys)), run)
    found: dict[Issue, list[str]] = {}
    for run, trials in [*((run, True) for run in samples), *((run, False) for run in first.values())]:
        for issue in [*_issues(run, trials), *_unmeasured(run, plan)]:
            found.setdefault(issue, []).append(run.name)
    count = len(samples) + len(first)
    said = [replace(issue, variants=_which(names, count)) for issue, names in found.items()]
    if errors := [issue for issue in said if issue.level == ERROR]:
        raise ConfigError(errors)
    varied = {key for options in plan.file.axes.values() for settings in options.values() for key in settings}
    return [issue for issue in said if not (issue.variants and issue.key in varied and NO_EFFECT in issue.text)]


def _issues(run: PlannedRun, trials: bool) -> Iterable[Issue]:
    try:
        return validate(run.flat, trials=trials).warnings
    except ConfigError as error:
        return error.issues


def _unmeasured(run: PlannedRun, plan: SweepPlan) -> list[Issue]:
    """Return that a choice needs validation data, and there is none."""
    what = "[tune]" if plan.file.tune is not None else "summary = 'best'" if plan.file.summary == BEST else ""
    if not what or place_of_validation(parse(run.flat), Mode.SIMULATION) != NOWHERE:
        return []
    text = f"{what} chooses on validation data, and with {VALIDATION} = 0 there is none"
    return [Issue(ERROR, VALIDATION, text, "leave it at its default, or set it to 0.1")]


def _which(names: list[str], count: int) -> str:
    """Return which runs have an issue; nothing where all have it."""
    if len(names) == count:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + more
