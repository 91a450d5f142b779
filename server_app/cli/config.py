"""Configuration of a command: the app's folder, and its settings merged from files and words, with absolute paths."""

import argparse
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import server_app
from tasks.config import DEFAULTS, PATHS, ConfigError, Flat, flatten, overlay, read, variants
from tasks.files import user_path, write_problem
from tasks.issues import ERROR, Issue
from tasks.plugins import did_you_mean
from tasks.setting_values import Value, path_problem
from tasks.settings import OLDER_RUNS

COMPONENTS = {"serverapp": "server_app.app:app", "clientapp": "client_app.app:app"}
REMEDY = "go to a checkout of Winnow, or name its folder with --app"
WHEEL_S = "share/winnow/pyproject.toml"  # where a wheel puts that of the app, see [tool.setuptools.data-files]
RECIPES = Path(server_app.__path__[0]) / "recipes"  # they come with the package
SWEEPS = Path(server_app.__path__[0]) / "sweeps"


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

    def sent(self) -> Path:
        """Return the folder of which Flower makes the bundle that nodes are sent.

        Raises
        ------
        CommandError
            If there is none, because Winnow is installed from a wheel.
        """
        if manifest(self.app).parent != self.app:
            raise CommandError(f"Flower sends nodes the app's folder, and here are only installed packages: {REMEDY}")
        return self.app


def path_argument(text: str) -> Path:
    """Read a path of a command line, for :mod:`argparse`; a ``~`` that the shell has left is the home folder."""
    try:
        return Path(user_path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


APP: Any = {
    "type": path_argument,
    "metavar": "DIR",
    "help": "folder of the app (default: here, else what is installed)",
}


def address_argument(text: str) -> str:
    """Read the address of a SuperLink for :mod:`argparse`."""
    host, _, port = text.rpartition(":")
    problem = ""
    if "/" in text:
        problem = "no https:// and no path belong to it"
    elif not host:
        problem = "the host is missing" if text.startswith(":") else "the port is missing"
    elif not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        problem = "its port is not a number from 1 to 65535"
    elif re.search(r"\s", host) or (":" in host and not re.fullmatch(r"\[[^]]+\]", host)):
        problem = "its host is neither a name nor an address (IPv6 in brackets)"
    if problem:
        raise argparse.ArgumentTypeError(f"{text!r}: {problem}; expected HOST:PORT, such as fl.example.org:8000")
    return text


ADDRESS: Any = {"type": address_argument, "metavar": "HOST:PORT"}


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


def make_plan(words: Iterable[str], app: Path | str | None, cwd: Path) -> RunPlan:
    """Merge the app's defaults, the configuration of a run to resume, a recipe and ``key=value`` words, in this order.

    What the run to resume has recorded replaces the defaults; recipe and words are laid over it, see
    :func:`tasks.config.overlay`.

    Raises
    ------
    CommandError
        If a file is missing or is not TOML, or a word is neither a recipe (``recipe@setting,setting`` chooses
        settings of it) nor ``key=value``.
    ConfigError
        With every key, type and range error of the result.
    """
    from server_app.cli.recipes import recipe_layers  # which reads files by means of this module

    folder = app_folder(app, cwd)
    recipe, layers = split_words(words)
    declared = flatten(read_toml(manifest(folder))["tool"]["flwr"]["app"].get("config", {}))
    recipe_settings = recipe_layers(recipe, cwd) if recipe else []
    layers = [*recipe_settings, *layers]
    flat = absolute_paths(overlay({**declared, **_resumed(overlay(*layers), cwd)}, *layers), cwd)
    make_importable(folder)
    check_keys(flat, _known_sound(recipe, recipe_settings, cwd))
    return RunPlan(folder, declared, flat)


def app_folder(given: Path | str | None, cwd: Path) -> Path:
    """Return the folder of the Flower app: the given one, else the working directory, else what is installed.

    Raises
    ------
    CommandError
        If it is not the folder of a Flower app, or of another one than Winnow.
    """
    if given is not None:
        folder = Path(os.path.realpath(cwd / given))
    elif _app_table(cwd) is not None:
        folder = cwd
    else:
        folder = installed_app()
    table = _app_table(folder)
    if table is None:
        raise CommandError(f"{folder} has no pyproject.toml with [tool.flwr.app]: {REMEDY}")
    found = table.get("components", COMPONENTS)
    if found != COMPONENTS:
        raise CommandError(f"{folder} holds another Flower app, not Winnow (its components are {found}): {REMEDY}")
    return folder


def installed_app() -> Path:
    """Return the folder of the app that is used where none is named: the installed checkout, or a wheel's packages."""
    return Path(server_app.__path__[0]).resolve().parent


def manifest(folder: Path) -> Path:
    """Return the pyproject.toml of an app's folder: in it, or, of packages from a wheel, where the wheel has put it."""
    file = folder / "pyproject.toml"
    if os.path.isfile(file) or folder != installed_app():
        return file
    try:
        files = metadata.files("winnow") or []
    except metadata.PackageNotFoundError:
        return file
    return next((Path(found.locate()).resolve() for found in files if found.as_posix().endswith(WHEEL_S)), file)


def _app_table(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's pyproject.toml says of its Flower app, or None if there is none."""
    file = manifest(folder)
    table: Any = read_toml(file) if os.path.isfile(file) else None
    for name in ("tool", "flwr", "app"):
        table = table.get(name) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else None


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
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits, and of too deep brackets
        raise CommandError(f"{path} is not TOML: {error}") from error


def split_words(words: Iterable[str]) -> tuple[str, list[Flat]]:
    """Split ``[recipe] [key=value ...]`` into the recipe ("" if none) and the changes.

    The changes are one layer; a key that comes again begins another, so ``loss.args= loss.args='q = 0.5'`` sets the
    arguments from nothing.

    Raises
    ------
    CommandError
        If there is more than one recipe.
    """
    recipes, layers = [], list[Flat]([{}])
    for word in words:
        name, equals, text = word.partition("=")
        key = name.strip()
        if equals:
            if key in layers[-1]:
                layers.append({})
            layers[-1][key] = parse_value(key, text.strip())
        else:
            recipes.append(word)
    if len(recipes) > 1:
        raise CommandError(f"expected one recipe and then key=value, got {' and '.join(recipes)}")
    return "".join(recipes), layers


def parse_value(key: str, text: str) -> Value:
    """Read a TOML value; what is none, and anything unquoted for a text setting, is taken as the text itself.

    >>> parse_value("train.epochs", "3"), parse_value("train.augment", "false"), parse_value("loss.name", "nce+rce")
    (3, False, 'nce+rce')
    """
    try:
        value = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # as in read_toml
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
    return find_toml(name, cwd, RECIPES, "recipe", "\nA setting is written key=value, such as train.epochs=5.")


def find_toml(name: str, cwd: Path, ours: Path, kind: str, advice: str = "") -> Path:
    """Return the file that a name stands for: a path, or a bare name among the files in the folder ``ours``.

    Raises
    ------
    CommandError
        If there is no such file; the message says so of a ``kind`` and ends with ``advice``.
    """
    file = cwd / os.path.expanduser(name)
    if os.path.isfile(file):  # False for what cannot be looked at, such as a name that is too long
        return file
    known = {path.stem: path for path in sorted(ours.glob("*.toml"))}
    if name in known:
        return known[name]
    raise CommandError(f"no {kind} {name!r}: neither a file nor one of {ours}{did_you_mean(name, known)}{advice}")


def absolute_paths(flat: Mapping[str, Value], cwd: Path) -> Flat:
    """Make the path settings absolute: Flower's processes work in another folder. What is no path is left as it is."""
    given = {key: str(flat[key]) for key in PATHS if flat.get(key)}
    located = {key: path if path_problem(path) else str(cwd / user_path(path)) for key, path in given.items()}
    return {**flat, "run.output-dir": str(cwd / "runs"), **located}


def check_keys(flat: Mapping[str, Value], sound: Mapping[str, Value] | None = None) -> None:
    """Check keys, types, ranges and names of built-in parts, and that ``variants`` is readable.

    ``sound`` are settings known to be right. Where others than the wrong ones differ from them, all parts are built
    too, which is slow to import, so that all errors come at once.

    Raises
    ------
    ConfigError
        With every error found.
    """
    from server_app.cli.names import arguments_of, unknown_names  # which reads sources by means of this package

    overrides = variants(flat)
    errors, names = read({**flat, "variants": ""})[1], unknown_names(flat, sound)
    if not errors and not names:
        return
    wrong, named = {issue.key for issue in errors}, {issue.key for issue in names}
    changed = {key for key, value in flat.items() if sound is None or value != sound.get(key)}
    changed -= {"run.output-dir", *wrong, *named, *arguments_of(named)}
    if changed or any(wrong & changes.keys() for changes in overrides.values()):
        from server_app.validation.config import check_variants

        check_variants(flat)
    raise ConfigError([*errors, *names])


def _known_sound(recipe: str, layers: Iterable[Flat], cwd: Path) -> Flat | None:
    """Return the defaults with a recipe of ours; None for one that may be wrong, or whose data may not be there."""
    flat = overlay(DEFAULTS, *layers)
    needs_data = flat["task.name"] != DEFAULTS["task.name"]
    own = not recipe or find_recipe(recipe.partition("@")[0], cwd).parent == RECIPES
    return None if needs_data or not own else flat


def output_issues(plan: RunPlan) -> list[Issue]:
    """Return why the run cannot be recorded where the settings say."""
    key = "run.resume" if plan.flat.get("run.resume") else "run.output-dir"
    folder = str(plan.flat.get(key) or "")
    problem = write_problem(Path(folder)) if folder else ""
    text = f"{key} = {folder!r}: a run cannot be recorded there: {problem}"
    return [Issue(ERROR, key, text, "name a folder that you can write")] if problem else []


def make_importable(folder: Path) -> None:
    """Let plug-ins that lie beside the app's pyproject.toml be imported, as Flower does in a run."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _resumed(chosen: Mapping[str, Value], cwd: Path) -> Flat:
    """Return the configuration of the run to resume, if one is; the check names settings that are none any more."""
    resume = chosen.get("run.resume")
    if not resume:
        return {}
    file = path_below(cwd, str(resume), "run.resume") / "config.toml"
    expected = f"run.resume = {str(resume)!r}: expected the directory of a run, but"
    if not os.path.isfile(file):
        raise CommandError(f"{expected} {file} does not exist")
    saved = {key: value for key, value in flatten(read_toml(file)).items() if key in DEFAULTS}
    if not saved:
        raise CommandError(f"{expected} {file} holds none of a run's settings")
    return OLDER_RUNS | saved
