"""Provenance of a sweep: in which settings its options differ, and versions and durations of its runs."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from server_app.report.text import NONE, counted, duration
from server_app.sweep.database import COMPLETED, SEED, SweepDesign, SweepRun

DEFAULT = "default"


@dataclass(frozen=True)
class DifferingSettings:
    """The settings of one option of an axis that all its runs share, and in which it differs from another option."""

    axis: str
    option: str
    settings: Mapping[str, str]


def setting_text(value: Any) -> str:
    """Return a setting's value as it stands in a configuration file."""
    return json.dumps(value, ensure_ascii=False)


def differing_settings(design: SweepDesign, runs: Sequence[SweepRun]) -> list[DifferingSettings]:
    """Return what the options of each axis stand for, the seed left out; a missing setting is at its default."""
    keys = sorted({key for run in runs for key in run.settings})
    found = []
    for axis in design.axes:
        if axis == SEED:
            continue
        values = {key: _values_by_option(axis, key, runs) for key in keys}
        own = [key for key in keys if _belongs(values[key])]
        for option in design.axes[axis]:
            settings = {key: next(iter(values[key][option])) for key in own if option in values[key]}
            found.append(DifferingSettings(axis, option, settings))
    return found


def _values_by_option(axis: str, key: str, runs: Iterable[SweepRun]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        found[run.point[axis]].add(setting_text(run.settings[key]) if key in run.settings else DEFAULT)
    return dict(found)


def _belongs(values: Mapping[str, set[str]]) -> bool:
    """Tell whether a setting has one value in each option of an axis, and not the same in all."""
    return all(len(each) == 1 for each in values.values()) and len(set.union(*values.values())) > 1


def common_settings(runs: Sequence[SweepRun]) -> dict[str, str]:
    """Return the settings that differ from the defaults in all runs alike."""
    if not runs:
        return {}
    first, *others = runs
    shared = {key: value for key, value in first.settings.items() if all(key in run.settings for run in others)}
    return {
        key: setting_text(value) for key, value in shared.items() if all(run.settings[key] == value for run in others)
    }


def versions(runs: Iterable[SweepRun]) -> list[tuple[str, str]]:
    """Return each recorded fact of the runs' versions; where they differ, each value with its number of runs."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        for name, text in run.versions.items():
            if text:
                found[name][str(text)] += 1
    return [(name, _counts(values)) for name, values in found.items()]


def _counts(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{text} ({counted(number, 'run')})" for text, number in values.most_common())


@dataclass(frozen=True)
class Durations:
    """How long the finished runs of an option took: usual time of one, and CPU time of all."""

    option: str
    runs: int
    usual: str
    cpu: str


def durations(design: SweepDesign, runs: Iterable[SweepRun]) -> list[Durations]:
    """Return the durations of the finished runs of each compared option."""
    groups: dict[str, list[SweepRun]] = defaultdict(list)
    for run in runs:
        if run.state == COMPLETED:
            groups[run.point[design.compared]].append(run)
    return [
        Durations(option, len(groups[option]), _usual(groups[option]), _cpu(groups[option]))
        for option in design.axes[design.compared]
        if option in groups
    ]


def _usual(runs: Sequence[SweepRun]) -> str:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    return duration(median(seconds)) if seconds else NONE


def _cpu(runs: Sequence[SweepRun]) -> str:
    seconds = [run.cpu_seconds for run in runs if run.cpu_seconds is not None]
    return duration(sum(seconds)) if seconds else NONE
