"""Sweep file: the TOML file that says what is compared, read into axes, options and layers of settings.

All that is wrong with it is said at once, each with its place in the file.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server_app.cli.config import CommandError, read_toml
from server_app.cli.recipes import Recipe, read_recipe, recipe_layers
from server_app.sweep.database import BEST, LAST, LAST_TEN, SEED, label
from tasks.config import DEFAULTS, FIELDS, Flat, flatten, overlay, read, variants
from tasks.plugins import did_you_mean
from tasks.setting_values import Value
from tasks.settings import NAME

KEYS = "name note tags base compare baseline measure summary common axes exclude variants tune".split()  # noqa: SIM905
TUNE_KEYS = ("seeds", "choose", "only", "common")
SUMMARIES = (LAST, LAST_TEN, BEST)
MEAN, WORST, EACH = "mean", "worst", "each"
CHOICES = (MEAN, WORST, EACH)
VARIANT = "variant"
"""The axis of named runs where no other is compared."""
REFUSED = {
    "variants": "make them the options of an axis",
    "run.resume": "a sweep goes on by itself",
    "run.output-dir": "a sweep's runs lie in its own folder: --output DIR",
}
Options = Mapping[str, Flat]
Match = Mapping[str, tuple[str, ...]]
"""Options by axis, of which one each must be met."""


@dataclass(frozen=True)
class TuneTable:
    """What is tuned: the values tried by key, on which seeds and settings, how one is chosen, and settings besides."""

    keys: Mapping[str, tuple[Value, ...]]
    seeds: tuple[int, ...]
    choose: str = MEAN
    only: Match = field(default_factory=dict)
    common: Flat = field(default_factory=dict)


@dataclass(frozen=True)
class SweepFile:
    """A sweep file as it was read; ``axes`` has the seed last, ``layers`` are below all options."""

    name: str
    axes: Mapping[str, Options]
    compared: str
    layers: tuple[Flat, ...]
    exclude: tuple[Match, ...] = ()
    tune: TuneTable | None = None
    baseline: str = ""
    measure: str = "accuracy"
    summary: str = LAST_TEN
    note: str = ""
    tags: tuple[str, ...] = ()


class SweepFileError(CommandError):
    """All that is wrong with a sweep file, one line each."""

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        count = "1 error" if len(self.problems) == 1 else f"{len(self.problems)} errors"
        super().__init__(f"{count} in {path}:\n" + "\n".join(f"  - {problem}" for problem in self.problems))


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep file.

    Raises
    ------
    SweepFileError
        With every error found.
    CommandError
        If it is not there or not TOML, or its base cannot be used.
    """
    reader = _Reader(path, read_toml(path))
    found = reader.read()
    if reader.problems:
        raise SweepFileError(path, reader.problems)
    return found


class _Reader:
    """Reads one file and collects what is wrong with it in ``problems``."""

    def __init__(self, path: Path, table: dict[str, Any]) -> None:
        self._path, self._table = path, table
        self.problems: list[str] = []
        self._recipe = Recipe("", (), {})

    def read(self) -> SweepFile:
        """Return what the file says, as far as it can be read."""
        for key in self._table.keys() - set(KEYS):
            self._say(key, f"unknown key{did_you_mean(key, KEYS)}")
        chosen = self._read_base()
        common = self._settings("common", self._table.get("common", {}))
        axes = self._axes(chosen, common)
        compared = self._compared(axes)
        axes = self._with_variants(axes, compared)
        axes = {**{name: options for name, options in axes.items() if name != SEED}, SEED: self._seeds(axes, common)}
        below = [options[chosen.get(axis, next(iter(options)))] for axis, options in self._unused(axes).items()]
        return SweepFile(
            name=self._name(),
            axes=axes,
            compared=compared,
            layers=(*self._recipe.own, *below, common),
            exclude=tuple(self._match(f"exclude[{n}]", each, axes) for n, each in enumerate(self._list("exclude"), 1)),
            tune=self._tune(axes),
            baseline=self._one_of("baseline", axes.get(compared, {}), ""),
            measure=self._text("measure", "accuracy"),
            summary=self._one_of("summary", SUMMARIES, LAST_TEN),
            note=self._text("note", ""),
            tags=tuple(map(str, self._list("tags"))),
        )

    def _say(self, where: str, text: str) -> None:
        self.problems.append(f"{where}: {text}")

    def _text(self, key: str, default: str) -> str:
        value = self._table.get(key, default)
        if isinstance(value, str) and (value or not default):
            return value
        self._say(key, f"a text expected, got {value!r}")
        return default

    def _name(self) -> str:
        name = self._text("name", self._path.stem)
        if not re.fullmatch(NAME, name):
            self._say(
                "name", f"{name!r:.110}: up to 100 letters, digits, '.', '_' and '-' expected, for a folder's name"
            )
        return name

    def _list(self, key: str) -> list[Any]:
        value = self._table.get(key, [])
        if isinstance(value, list):
            return value
        if isinstance(value, dict):  # [exclude] for [[exclude]], when there is one only
            return [value]
        self._say(key, f"a list expected, got {value!r}")
        return []

    def _one_of(self, key: str, known: Iterable[str], default: str) -> str:
        value, names = self._text(key, default), list(known)
        if value and value not in names:
            self._say(key, f"unknown {value!r}{did_you_mean(value, names)}")
        return value

    def _read_base(self) -> dict[str, str]:
        """Read the recipe below all, and return the options that are chosen from its axes, by axis."""
        word = self._text("base", "")
        if not word:
            return {}
        name, at, picked = word.rpartition("@")
        self._recipe = read_recipe(name or word, self._path.absolute().parent)
        options = picked.split(",") if at else []
        self._recipe.layers(options)  # says which options there are
        return {axis: option for axis, known in self._recipe.axes.items() for option in options if option in known}

    def _unused(self, axes: Mapping[str, Options]) -> dict[str, Options]:
        return {axis: options for axis, options in self._recipe.axes.items() if axis not in axes}

    def _settings(self, where: str, given: object) -> Flat:
        """Return a table of settings, flat; each must be known, and fit by itself."""
        if not isinstance(given, dict):
            self._say(where, f"a table of settings expected, such as {{ loss.name = 'ce' }}, got {given!r}")
            return {}
        flat = flatten(given)
        for key in flat.keys() & REFUSED.keys():
            self._say(where, f"{key} cannot be set here: {REFUSED[key]}")
        self.problems += [f"{where}: {issue.line}" for issue in read(flat)[1]]
        return flat

    def _axes(self, chosen: Mapping[str, str], common: Flat) -> dict[str, Options]:
        given = self._table.get("axes", {})
        if not isinstance(given, dict):
            self._say("axes", f"a table expected, got {given!r}")
            return {}
        found: dict[str, Options] = {}
        texts = [layer["variants"] for layer in (*self._recipe.own, common) if layer.get("variants")]
        if texts and "variants" not in common:  # those of the base
            found[VARIANT] = variants({"variants": texts[-1]})
        for name, value in given.items():
            if isinstance(value, dict):
                lists = {f"{name}.{key}": each for key, each in value.items() if isinstance(each, list)}
                found |= {key: self._listed(key, each) for key, each in lists.items()}
                options = {key: each for key, each in value.items() if not isinstance(each, list)}
                if options or not lists:
                    found[name] = self._named(name, options)
            else:
                found[name] = self._listed(name, value)
        return found

    def _listed(self, axis: str, values: object) -> Options:
        """Return the options of an axis that is a list: of values of a setting, or of options of the base."""
        where, known = f"axes.{axis}", self._recipe.axes.get(axis)
        if not isinstance(values, list) or not values:
            what = (
                "has no option"
                if values == []
                else f"a list of values, or a table of options, expected, got {values!r}"
            )
            self._say(where, what)
            return {}
        names = [label(value) for value in values]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._say(where, f"the option {name} stands there twice")
        if known is not None and axis not in FIELDS:
            for name in names:
                if name not in known:
                    self._say(where, f"recipe {self._recipe.name!r} has no {axis} {name!r}{did_you_mean(name, known)}")
            return {name: known.get(name, {}) for name in names}
        if axis not in FIELDS:
            remedy = "name a setting, or give each option its settings: name = { key = value }"
            self._say(where, f"no setting is called {axis!r}{did_you_mean(axis, FIELDS)}; {remedy}")
            return {name: {} for name in names}
        return {
            name: self._settings(f"{where} = {name}", {axis: value}) for name, value in zip(names, values, strict=True)
        }

    def _named(self, axis: str, table: Mapping[str, object]) -> Options:
        """Return the options of an axis that is a table: each has settings, or a value of the setting of its name."""
        where = f"axes.{axis}"
        if not table:
            self._say(where, "has no option")
        return {name: self._option(axis, f"{where}.{name}", given) for name, given in table.items()}

    def _option(self, axis: str, where: str, given: object) -> Flat:
        """Return the settings of an option: a table, a value of the setting that the axis is named for, or a recipe."""
        if not isinstance(given, str) or axis in FIELDS:
            return self._settings(where, {axis: given} if axis in FIELDS and not isinstance(given, dict) else given)
        try:
            return self._settings(where, overlay(*recipe_layers(given, self._path.absolute().parent)))
        except CommandError as error:
            self._say(where, str(error))
            return {}

    def _compared(self, axes: Mapping[str, Options]) -> str:
        others = [name for name in axes if name != SEED]
        default = "method" if "method" in axes else next(iter(others), VARIANT)
        found = self._text("compare", default)
        named = self._table.get("variants")
        if found not in others and not (named and found not in axes) and others:
            self._say("compare", f"there is no axis {found!r} to compare{did_you_mean(found, others)}")
        return found

    def _with_variants(self, axes: dict[str, Options], compared: str) -> dict[str, Options]:
        """Add the named runs to the options that are compared; a sweep without any compares one thing with nothing."""
        options = dict(axes.get(compared, {}))
        for number, each in enumerate(self._list("variants"), 1):
            where = f"variants[{number}]"
            if (
                not isinstance(each, dict)
                or not isinstance(each.get("name"), str)
                or each.keys() - {"name", "settings"}
            ):
                self._say(where, "expected  name = '...'  and  settings = { key = value }")
            elif each["name"] in options:
                self._say(where, f"the name {each['name']!r} is given twice on the axis {compared}")
            else:
                options[each["name"]] = self._settings(f"{where} {each['name']}", each.get("settings", {}))
        if not options and not self.problems:
            options = {self._text("name", self._path.stem): {}}
        return {**axes, compared: options} if options else axes

    def _seeds(self, axes: Mapping[str, Options], common: Flat) -> Options:
        layers = [layer for name, options in axes.items() if name != SEED for layer in options.values()]
        if any(SEED in layer for layer in layers):
            self._say(SEED, "options cannot set it: give it an axis of its own, [axes] seed = [1, 2, 3]")
        if SEED in axes:
            if SEED in common:
                self._say("common.seed", "there is an axis of this name")
            return axes[SEED]
        value = {**DEFAULTS, **{key: value for layer in (*self._recipe.own, common) for key, value in layer.items()}}[
            SEED
        ]
        return {label(value): {SEED: value}}

    def _match(self, where: str, given: object, axes: Mapping[str, Options]) -> Match:
        """Return which options are meant; each must be there."""
        if not isinstance(given, dict) or not given:
            self._say(where, f"a table of axes and options expected, such as method = 'fedcorr', got {given!r}")
            return {}
        found = {}
        for axis, value in given.items():
            names = tuple(label(each) for each in (value if isinstance(value, list) else [value]))
            if axis not in axes:
                self._say(where, f"there is no axis {axis!r}{did_you_mean(axis, axes)}")
                continue
            for name in names:
                if name not in axes[axis]:
                    self._say(where, f"the axis {axis} has no option {name!r}{did_you_mean(name, axes[axis])}")
            if not names:
                self._say(where, f"{axis} = []: name at least one option")
            found[axis] = names
        return found

    def _tune(self, axes: Mapping[str, Options]) -> TuneTable | None:
        given = self._table.get("tune")
        if given is None:
            return None
        if not isinstance(given, dict):
            self._say("tune", f"a table expected, got {given!r}")
            return None
        keys: dict[str, Any] = flatten({key: value for key, value in given.items() if key not in TUNE_KEYS})
        for key, values in keys.items():
            self._listed_values(f"tune.{key}", key, values)
        if not keys:
            self._say("tune", "names nothing to tune: give a setting its values, such as 'train.learning-rate' = [0.1]")
        choose = given.get("choose", MEAN)
        if choose not in CHOICES:
            self._say("tune.choose", f"unknown {choose!r}{did_you_mean(str(choose), CHOICES)}")
        seeds = given.get("seeds", [])
        if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
            self._say("tune.seeds", f"a list of whole numbers expected, which are seeds of tuning only, got {seeds!r}")
            seeds = []
        if shared := [label(seed) for seed in seeds if label(seed) in axes[SEED]]:
            self._say(
                "tune.seeds", f"{', '.join(shared)} also compared: tune on seeds that the comparison does not use"
            )
        only = self._match("tune.only", given["only"], axes) if "only" in given else {}
        common = self._settings("tune.common", given.get("common", {}))
        tried = {key: tuple(values) for key, values in keys.items() if isinstance(values, list)}
        return TuneTable(tried, tuple(seeds), choose, only, common)

    def _listed_values(self, where: str, key: str, values: object) -> None:
        """Say what is wrong with the values that are tried of a setting."""
        if not isinstance(values, list) or not values:
            self._say(where, f"a list of values expected, got {values!r}")
            return
        for value in values:
            self._settings(where, {key: value})
        if len({label(value) for value in values}) < len(values):
            self._say(where, "a value stands there twice")
