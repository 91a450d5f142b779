"""Configuration of a command: the app's folder, and its settings merged from files and words, with absolute paths."""

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import server_app
from tasks.config import DEFAULTS, ConfigError, Flat, Value, flatten, parse, variants
from tasks.plugins import did_you_mean

PATH_KEYS = ("run.output-dir", "run.resume", "task.data-path", "task.cache-path", "task.weights-path")
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


def make_plan(words: Iterable[str], app: str | None, cwd: Path) -> RunPlan:
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


def app_folder(given: str | None, cwd: Path) -> Path:
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
    if (cwd / name).is_file():
        return cwd / name
    known = {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}
    if name in known:
        return known[name]
    raise CommandError(
        f"no recipe {name!r}: neither a file nor one of {RECIPES}{did_you_mean(name, known)}\n"
        "A setting is written key=value, such as train.epochs=5."
    )


def absolute_paths(flat: Mapping[str, Value], cwd: Path) -> Flat:
    """Make the path settings absolute: Flower's processes work in another folder."""
    located = {key: str(cwd / str(flat[key])) for key in PATH_KEYS if flat.get(key)}
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
    file = cwd / str(resume) / "config.toml"
    if not file.is_file():
        raise CommandError(f"run.resume = {str(resume)!r}: expected the directory of a run, but {file} does not exist")
    return flatten(read_toml(file))
