"""Recipes: configurations by name for ``winnow run``, and the settings that each offers: ``recipe@setting,setting``.

A recipe is a TOML file of settings with two more keys. ``base`` names another recipe that it is laid over. The table
``settings`` has an axis for each thing that can be chosen, such as noise or partition, with the options by name::

    base = "fnbench-cifar10"

    [settings.noise]
    clean = { noise.name = "none" }
    "symmetric-0.4" = { noise.name = "symmetric", noise.rates-args = "max = 0.4" }

An option is laid over the recipe's own settings. Of an axis from which nothing is chosen, the first option holds.
Options of an axis that the base has too are added, or replace those of the same name; ``false`` takes an option or a
whole axis of the base away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server_app.cli.catalog import Choice
from server_app.cli.config import RECIPES, SWEEPS, CommandError, find_recipe, read_toml
from tasks.config import Flat, flatten
from tasks.plugins import did_you_mean

Axes = Mapping[str, Mapping[str, Flat]]


@dataclass(frozen=True)
class Recipe:
    """A recipe: its ``name``, its own layers of settings, a base's before those laid over it, and its ``axes``."""

    name: str
    own: tuple[Flat, ...]
    axes: Axes

    def layers(self, chosen: list[str]) -> list[Flat]:
        """Return the layers of settings with the ``chosen`` options, at most one of each axis.

        Raises
        ------
        CommandError
            If there is no such option, or two belong to one axis.
        """
        axis_of = {option: axis for axis, options in self.axes.items() for option in options}
        picked: dict[str, str] = {}
        for option in chosen:
            if option not in axis_of:
                hint = did_you_mean(option, axis_of) if axis_of else "; it offers none"
                raise CommandError(f"recipe {self.name!r} has no setting {option!r}{hint}")
            if other := picked.get(axis_of[option]):
                raise CommandError(f"{other} and {option} are both {axis_of[option]} of {self.name!r}: choose one")
            picked[axis_of[option]] = option
        options = [options[picked.get(axis, next(iter(options)))] for axis, options in self.axes.items()]
        return [*self.own, *options]


def recipe_layers(word: str, cwd: Path) -> list[Flat]:
    """Return the layers of settings that a word of the command line stands for: ``recipe`` or ``recipe@setting,...``.

    Raises
    ------
    CommandError
        If there is no such recipe or setting, or the recipe is none.
    """
    name, at, settings = ("", "", "") if (cwd / word).is_file() else word.rpartition("@")
    return read_recipe(name or word, cwd).layers(settings.split(",") if at else [])


def read_recipe(name: str, cwd: Path, above: tuple[Path, ...] = ()) -> Recipe:
    """Read a recipe and those that it is based on; ``above`` are the files that led to it.

    Raises
    ------
    CommandError
        If one is missing, is based on itself, or its ``settings`` cannot be read.
    """
    file = find_recipe(name, cwd).absolute()
    if file in above:
        raise CommandError(f"the recipe {file} is based on itself: give it another base")
    table = read_toml(file)
    base, given = table.pop("base", None), table.pop("settings", {})
    if not (base is None or isinstance(base, str)):
        raise CommandError(f"{file}: base = {base!r}: the name of a recipe expected")
    start = read_recipe(base, file.parent, (*above, file)) if base is not None else Recipe(name, (), {})
    axes = _joined(start.axes, given, file)
    names = [option for options in axes.values() for option in options]
    if twice := sorted({option for option in names if names.count(option) > 1}):
        raise CommandError(f"{file}: {', '.join(twice)}: the name of two settings; give each its own")
    return Recipe(name, (*start.own, flatten(table)), axes)


def recipe_choices() -> list[Choice]:
    """Return each recipe that comes with Winnow, with the options that it offers, sorted by name."""
    found = []
    for file in sorted(RECIPES.glob("*.toml"), key=lambda file: file.stem):
        axes = read_recipe(file.stem, RECIPES).axes
        options = {axis: tuple(options) for axis, options in axes.items()}
        found.append(Choice(file.stem, described(file), options=options))
    return found


def sweep_choices() -> list[Choice]:
    """Return each sweep that comes with Winnow, sorted by name."""
    return [Choice(file.stem, described(file)) for file in sorted(SWEEPS.glob("*.toml"), key=lambda file: file.stem)]


def described(file: Path) -> str:
    """Return the first sentence of the comment that a TOML file begins with."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ").partition(". ")[0].rstrip(".")


def _joined(base: Axes, given: object, file: Path) -> Axes:
    """Lay the axes that a recipe gives over its base's."""
    axes = dict(base)
    for axis, options in _table(given, f"{file}: settings").items():
        where = f"{file}: settings.{axis}"
        if options is False:
            axes.pop(axis, None)
            continue
        joined = {**axes.get(axis, {}), **_options(_table(options, where), where)}
        axes[axis] = {option: changes for option, changes in joined.items() if changes is not None}
        if not axes[axis]:
            raise CommandError(f"{where} has no option left; to leave the axis out, write {axis} = false")
    return axes


def _options(given: Mapping[str, object], where: str) -> dict[str, Flat | None]:
    """Return each option's settings, None for what is taken away."""
    return {
        option: None if changes is False else flatten(_table(changes, f"{where}.{option}"))
        for option, changes in given.items()
    }


def _table(value: object, where: str) -> dict[str, Any]:
    """Return a table as it was read.

    Raises
    ------
    CommandError
        If it is none.
    """
    if not isinstance(value, dict):
        raise CommandError(
            f"{where} = {value!r}: a table expected, such as clean = {{ noise.name = 'none' }}, or false"
        )
    return value
