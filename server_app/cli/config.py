"""Configuration of a command: the app's folder, and its settings merged from files and words, with absolute paths."""

import argparse
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import server_app
from tasks.config import DEFAULTS, PATHS, ConfigError, Flat, Value, flatten, parse, path_problem, variants
from tasks.files import user_path
from tasks.plugins import did_you_mean

RECIPES = Path(server_app.__path__[0]) / "recipes"  # they come with the package


class CommandError(ValueError):
    """A command line that cannot be followed; the message says what would be."""


@dataclass(frozen=True)
class RunPlan:
    """A checked run: the app's folder, its own configuration (``declared``) and the merged one (``flat``)."""

    app: Path
    declared: Flat
    flat: Flat

    def overrides(self) -> Flat:
        """Return what differs from the app's own configuration."""
        return {key: value for key, value in self.flat.items() if self.declared.get(key) != value}


def path_argument(text: str) -> Path:
    """Read a path of a command line, for :mod:`argparse`; a ``~`` that the shell has left is the home folder."""
    try:
        return Path(user_path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


APP: Any = {
    "type": path_argument,
    "metavar": "DIR",
    "help": "folder of the app (default: here, else the installed checkout)",
}


def path_below(cwd: Path, text: str, name: str) -> Path:
    """Return the path that a user has given as ``name``, from ``cwd`` on.

    Raises
    ------
    CommandError
        If it is none.
    """
    try:
        return cwd / user_path(text)
    except ValueError as error:
        raise CommandError(f"{name} = {text!r}: {error}") from error


def quoted(path: Path) -> str:
    """Return a path as a TOML text that ends, for Flower's pattern, where it ends for TOML: no quote stands in it.

    >>> print(quoted(Path("/home/o'brien/a b=c")))
    "/home/o'brien/a b=c"
    """
    plain = (char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in str(path))
    return f'"{"".join(plain)}"'


def make_plan(words: Iterable[str], app: Path | None, cwd: Path) -> RunPlan:
    """Merge the app's defaults, the configuration of a run to resume, a recipe and ``key=value`` words, in this order.

    Raises
    ------
    CommandError
        If a file is missing or is not TOML, or a word is neither a recipe nor ``key=value``.
    ConfigError
        With every key, type and range error of the result.
    """
    folder = app_folder(app, cwd)
    recipe, changes = split_words(words)
    declared = flatten(read_toml(folder / "pyproject.toml")["tool"]["flwr"]["app"].get("config", {}))
    chosen = (flatten(read_toml(find_recipe(recipe, cwd))) if recipe else {}) | changes
    flat = absolute_paths({**declared, **_resumed(chosen, cwd), **chosen}, cwd)
    make_importable(folder)
    check_keys(flat)
    return RunPlan(folder, declared, flat)


def app_folder(given: Path | None, cwd: Path) -> Path:
    """Return the folder of the Flower app: the given one, else the working directory, else the installed checkout.

    Raises
    ------
    CommandError
        If it is not the folder of a Flower app.
    """
    if given is not None:
        folder = (cwd / given).resolve()
    elif _is_app(cwd):
        return cwd
    else:
        folder = Path(server_app.__path__[0]).resolve().parent
    if not _is_app(folder):
        raise CommandError(
            f"{folder} has no pyproject.toml with [tool.flwr.app]: "
            "go to a checkout of Winnow, or name its folder with --app"
        )
    return folder


def _is_app(folder: Path) -> bool:
    file = folder / "pyproject.toml"
    return file.is_file() and "app" in read_toml(file).get("tool", {}).get("flwr", {})


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    CommandError
        If it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"{path} is not TOML: {error}") from error


def split_words(words: Iterable[str]) -> tuple[str, Flat]:
    """Split ``[recipe] [key=value ...]`` into the recipe ("" if none) and the changes.

    Raises
    ------
    CommandError
        If there is more than one recipe.
    """
    recipes, changes = [], {}
    for word in words:
        name, equals, text = word.partition("=")
        if equals:
            changes[name.strip()] = parse_value(name.strip(), text.strip())
        else:
            recipes.append(word)
    if len(recipes) > 1:
        raise CommandError(f"expected one recipe and then key=value, got {' and '.join(recipes)}")
    return "".join(recipes), changes


def parse_value(key: str, text: str) -> Value:
    """Read a TOML value; what is none, and anything unquoted for a text setting, is taken as the text itself.

    >>> parse_value("train.epochs", "3"), parse_value("train.augment", "false"), parse_value("loss.name", "nce+rce")
    (3, False, 'nce+rce')
    """
    try:
        value = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    found = value["value"]
    is_plain = len(value) == 1 and isinstance(found, bool | int | float | str)
    wants_text = isinstance(DEFAULTS.get(key), str) and not isinstance(found, str)
    return found if is_plain and not wants_text else text


def find_recipe(name: str, cwd: Path) -> Path:
    """Return the recipe file: a path, or a bare name among Winnow's recipes.

    Raises
    ------
    CommandError
        If there is no such file.
    """
    file = cwd / os.path.expanduser(name)
    if os.path.isfile(file):  # False for what cannot be looked at, such as a name that is too long
        return file
    known = {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}
    if name in known:
        return known[name]
    raise CommandError(
        f"no recipe {name!r}: neither a file nor one of {RECIPES}{did_you_mean(name, known)}\n"
        "A setting is written key=value, such as train.epochs=5."
    )


def absolute_paths(flat: Mapping[str, Value], cwd: Path) -> Flat:
    """Make the path settings absolute: Flower's processes work in another folder. What is no path is left as it is."""
    given = {key: str(flat[key]) for key in PATHS if flat.get(key)}
    located = {key: path if path_problem(path) else str(cwd / user_path(path)) for key, path in given.items()}
    return {**flat, "run.output-dir": str(cwd / "runs"), **located}


def check_keys(flat: Mapping[str, Value]) -> None:
    """Check keys, types and ranges, and that ``variants`` is readable; what they change is checked with their parts.

    Raises
    ------
    ConfigError
        With every error found.
    """
    try:
        parse({**flat, "variants": ""})
        variants(flat)
    except ConfigError:
        from server_app.validation.config import check_variants  # slow to import, but it finds all other errors too

        check_variants(flat)
        raise


def make_importable(folder: Path) -> None:
    """Let plug-ins that lie beside the app's pyproject.toml be imported, as Flower does in a run."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _resumed(chosen: Mapping[str, Value], cwd: Path) -> Flat:
    """Return the configuration of the run to resume, if one is."""
    resume = chosen.get("run.resume")
    if not resume:
        return {}
    file = path_below(cwd, str(resume), "run.resume") / "config.toml"
    if not file.is_file():
        raise CommandError(f"run.resume = {str(resume)!r}: expected the directory of a run, but {file} does not exist")
    return flatten(read_toml(file))
