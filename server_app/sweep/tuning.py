"""Tuning of a sweep: for each option that is compared the settings that do best on validation data.

Test data plays no part. All options have the same budget: the same values, seeds and settings are tried for each.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from server_app.report.reading import lower_is_better
from server_app.sweep.database import SweepError, SweepRun, label
from server_app.sweep.file import EACH, WORST, TuneTable
from server_app.sweep.plan import SweepPlan, describe_tuning
from server_app.sweep.selection import run_value
from tasks.config import Flat
from tasks.validation_split import VALIDATION

Values = tuple[str, ...]
Group = tuple[str, ...]


def chosen_settings(plan: SweepPlan, runs: Sequence[SweepRun]) -> tuple[dict[Group, Flat], dict[str, Any]]:
    """Return the chosen settings by option (or option and setting), and what the database keeps about the choice.

    A combination of values of which a run failed is not chosen; of equal ones the first in the file is.

    Raises
    ------
    SweepError
        If all combinations of an option failed.
    """
    tune = plan.file.tune
    if tune is None:
        return {}, {}
    scores = combination_scores(plan, tune, runs)
    chosen = {group: best(found) for group, found in scores.items()}
    if lost := [", ".join(group) for group, values in chosen.items() if values is None]:
        raise SweepError(f"tuning: no values can be chosen for {'; '.join(lost)}, since a run of each failed")
    settings: dict[Group, Flat] = {}
    for group, values in chosen.items():
        assert values is not None
        by_label = {key: {label(value): value for value in tried} for key, tried in tune.keys.items()}
        settings[group] = {key: by_label[key][value] for key, value in zip(tune.keys, values, strict=True)}
    return settings, _record(plan, tune, runs, scores, settings)


def combination_scores(
    plan: SweepPlan, tune: TuneTable, runs: Sequence[SweepRun]
) -> dict[Group, dict[Values, float | None]]:
    """Return how good each combination of tried values is for each option, higher is better; None = a run failed.

    It is the mean over the seeds, of which the mean or the worst over the settings counts.
    """
    found: defaultdict[Group, defaultdict[Values, defaultdict[Group, list[float | None]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for run in runs:
        group, setting = plan.group(run.point, tune.choose == EACH), plan.group(run.point, True)
        values = tuple(run.point[key] for key in tune.keys)
        found[group][values][setting].append(validation_score(run, plan.file.measure, plan.file.summary))
    over: Callable[[Sequence[float]], float] = min if tune.choose == WORST else mean
    return {
        group: {values: _combined(list(settings.values()), over) for values, settings in combinations.items()}
        for group, combinations in found.items()
    }


def _combined(settings: Sequence[Sequence[float | None]], over: Callable[[Sequence[float]], float]) -> float | None:
    means = [mean([each for each in scores if each is not None]) for scores in settings if None not in scores]
    return over(means) if len(means) == len(settings) else None


def best(scores: Mapping[Values, float | None]) -> Values | None:
    """Return the values with the highest score, the first of equal ones; None if all failed."""
    sound = {values: score for values, score in scores.items() if score is not None}
    return max(sound, key=sound.__getitem__) if sound else None


def validation_score(run: SweepRun, measure: str, summary: str) -> float | None:
    """Return a run's measure on validation data, higher is better; None if it failed or its end was not measured.

    It is summed up as the comparison does it.
    """
    value, _ = run_value(run, VALIDATION + measure, summary)
    return None if value is None else -value if lower_is_better(measure) else value


def _record(
    plan: SweepPlan,
    tune: TuneTable,
    runs: Sequence[SweepRun],
    scores: Mapping[Group, Mapping[Values, float | None]],
    settings: Mapping[Group, Flat],
) -> dict[str, Any]:
    compared = plan.file.compared
    return {
        **describe_tuning(tune),
        "measure": VALIDATION + plan.file.measure,
        "budget": {option: sum(run.point[compared] == option for run in runs) for option in plan.file.axes[compared]},
        "scores": {" | ".join(g): {" | ".join(v): score for v, score in found.items()} for g, found in scores.items()},
        "chosen": {" | ".join(group): dict(values) for group, values in settings.items()},
    }
