"""Import paths, ``package.module:Name``, and what is wrong with one."""

import difflib
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

from tasks.plugin.errors import PluginError, did_you_mean, explain

EXAMPLE = "an import path is written package.module:Name"
WHERE = "a module of your own must lie beside the app's pyproject.toml, or be installed on every node"


def looks_like_path(name: str) -> bool:
    """Tell whether a name is meant as an import path, well-formed or not, and not as a short name."""
    return any(mark in name for mark in (":", ".", "/", "\\"))


def is_own(name: str) -> bool:
    """Tell whether a choice is named by an import path, so that it is the user's and not built in."""
    return ":" in name


def load_object(path: str) -> Any:
    """Import ``package.module:Name``.

    Raises
    ------
    PluginError
        If the path is malformed, or the module or the name in it does not exist; errors inside the module are shown.
    """
    module_name, attribute = _split(path)
    module = _import(module_name)
    if not hasattr(module, attribute):
        public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
        own = [name for name, value in public.items() if getattr(value, "__module__", "") == module_name]
        raise PluginError(f"{module_name} has no {attribute!r}{did_you_mean(attribute, own or public)}")
    return getattr(module, attribute)


def _split(path: str) -> tuple[str, str]:
    """Return module and name of a path.

    Raises
    ------
    PluginError
        If it is not ``package.module:Name``; the message holds the corrected path if it can be guessed.
    """
    if re.fullmatch(r"\w+(\.\w+)*:\w+", path):
        module_name, _, attribute = path.partition(":")
        return module_name, attribute
    file, colon, attribute = path.replace("\\", "/").partition(":")
    module = re.sub(r"\.py$", "", file).lstrip("./").replace("/", ".")
    if not colon:
        module, _, attribute = module.rpartition(".")
    is_guess = re.fullmatch(r"\w+(\.\w+)*", module) and attribute.isidentifier() and not Path(file).is_absolute()
    raise PluginError(EXAMPLE + (f"; did you mean '{module}:{attribute}'?" if is_guess else ""))


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            place = explain(error).partition(": ")[2]
            raise PluginError(f"cannot import {name}, because it imports another module: {place}") from error
        raise PluginError(_not_there(error.name)) from error
    except (Exception, SystemExit) as error:  # the module is the user's: whatever it raises belongs in the message
        reason = f"{type(error).__name__}: {error}" if isinstance(error, ValueError) else explain(error)
        raise PluginError(f"cannot import {name}: {reason}") from error


def _not_there(absent: str) -> str:
    """Say that a module, or the package that it should lie in, does not exist."""
    parent = absent.rpartition(".")[0]
    here = Path.cwd() / absent
    if not parent and (here.is_dir() or here.with_suffix(".py").is_file()):
        return f"the module {absent!r} is in the working directory {Path.cwd()}, but not in the app; {WHERE}"
    prefix, places = (f"{parent}.", getattr(importlib.import_module(parent), "__path__", [])) if parent else ("", None)
    siblings = [prefix + found.name for found in pkgutil.iter_modules(places)]
    close = difflib.get_close_matches(absent, siblings, n=1)
    return f"there is no module {absent!r}" + (f"; did you mean {close[0]!r}?" if close else f"; {WHERE}")
