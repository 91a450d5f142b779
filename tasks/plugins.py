"""Plug-ins: everything that a user can choose, by the short name of a built-in or by an import path of one's own.

There is a :class:`Registry` for each kind of choice. Arguments are checked in ``tasks/arguments.py``; what plug-in
authors need of that is exported here too.
"""

import importlib
import inspect
import pkgutil
import re
import sysconfig
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from tasks.arguments import PluginError, accepted_names, bind, closest, did_you_mean, parse_args

__all__ = [
    "Entry",
    "PluginError",
    "Registry",
    "accepted_names",
    "bind",
    "did_you_mean",
    "explain",
    "is_own",
    "load_object",
    "looks_like_path",
    "parse_args",
]

ROOT = Path(__file__).resolve().parents[1]
OURS = [f"{ROOT / package}/" for package in ("tasks", "client_app", "strategies", "server_app")]
FOREIGN = ("<frozen", "site-packages", sysconfig.get_path("stdlib"), *OURS)
EXAMPLE = "an import path is written package.module:Name"
WHERE = "a module of your own must lie beside the app's pyproject.toml, or be installed on every node"
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # what TOML takes as a key without quotes


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One built-in choice: its short name, the factory, one line about it, its paper and where that can be read."""

    name: str
    factory: Callable[..., T]
    summary: str
    paper: str = ""
    links: tuple[str, ...] = ()


class Registry(Generic[T]):
    """The choices of one kind (loss, aggregator, ...): built-ins by name, anything else by import path.

    Parameters
    ----------
    kind
        What the choices are, in one or two words, for messages.
    base
        What every choice must be an instance of; None leaves that to the caller.
    others
        Further types that :meth:`convert` can turn into a ``base``.
    listed
        The kind as ``winnow list`` calls it, in one word; None takes ``kind`` with hyphens.
    run_sets
        Names of the arguments that the app gives :meth:`build` as ``context``: nobody else can set them.
    """

    def __init__(
        self,
        kind: str,
        base: type[T] | None = None,
        *others: type,
        listed: str | None = None,
        run_sets: Collection[str] = (),
    ) -> None:
        self.kind = kind
        self.run_sets = run_sets
        self.listed = listed or kind.replace(" ", "-")
        self._bases = (base, *others) if base else others
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, paper: str = "", *links: str) -> Callable[[F], F]:
        """Register the class or function below under ``name``; its docstring's first line becomes the summary.

        ``paper`` is its source as authors, venue and year, and ``links`` are the addresses where that can be read.

        Raises
        ------
        PluginError
            If a class is no subclass of what this registry holds, or lacks a method of it.
        """

        def add(factory: F) -> F:
            assert name not in self._entries, f"{self.kind} {name} is registered twice"
            self._check_factory(factory)
            summary = (inspect.getdoc(factory) or "").split("\n")[0].rstrip(".")
            self._entries[name] = Entry(name, factory, summary, paper, links)
            return factory

        return add

    def entries(self) -> list[Entry[T]]:
        """Return all built-ins, sorted by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def find(self, name: str) -> Callable[..., T]:
        """Return the factory behind a short name or a ``package.module:Name`` path.

        Raises
        ------
        PluginError
            If the name is unknown, the path cannot be imported, or what it names cannot build such a choice.
        """
        if name in self._entries:
            return self._entries[name].factory
        if not looks_like_path(name):
            raise PluginError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}")
        try:
            found = load_object(name)
            self._check_factory(found)
        except PluginError as error:
            raise PluginError(f"{self.kind} {name!r}: {error}") from error
        return cast(Callable[..., T], found)

    def build(self, name: str, args: str | Mapping[str, Any] = "", **context: Any) -> T:
        """Build a choice from its arguments, plus those ``context`` values that its signature asks for.

        Raises
        ------
        PluginError
            If an argument is missing, unknown or refused by the factory, or what it builds is something else.
        """
        factory = self.find(name)
        try:
            given = parse_args(args) if isinstance(args, str) else args
            factory = self.adapt(factory, given)
            built = self.convert(factory(**bind(factory, given, context)), name)
        except Exception as error:  # the factory may be the user's: whatever it raises belongs in the message
            raise PluginError(f"{self.kind} {name!r}: {explain(error)}") from error
        if self._bases and not isinstance(built, self._bases):
            raise PluginError(f"{self.kind} {name!r}: expected {self._wanted()}, got {_article(type(built).__name__)}")
        return cast(T, built)

    def build_each(self, text: str) -> dict[str, T]:
        """Build several choices, in the order of inline TOML such as ``nnm = { f = 4 }, "package.module:Name" = {}``.

        Raises
        ------
        PluginError
            If the text is not of this form, a name is unknown, or an argument does not fit.
        """
        try:
            given = parse_args(text)
        except PluginError as error:
            raise PluginError(f"each {self.kind} is written as name = {{ its arguments }}: {error}") from error
        for name, arguments in given.items():
            if not isinstance(arguments, dict):
                key = name if BARE_KEY.fullmatch(name) else f'"{name}"'
                raise PluginError(f"{self.kind} {name!r}: write its arguments as {key} = {{ ... }}, got {arguments!r}")
        return {name: self.build(name, arguments) for name, arguments in given.items()}

    def adapt(self, factory: Callable[..., T], given: Mapping[str, Any]) -> Callable[..., T]:
        """Return what builds the choice from its arguments; a subclass may wrap what was found."""
        return factory

    def convert(self, built: Any, name: str) -> Any:
        """Return what a factory built as what the registry promises; a subclass may wrap it, the default does not.

        Called before the type check, so whatever cannot be converted is returned as it is.
        """
        return built

    def _check_factory(self, found: object) -> None:
        """Raise ``PluginError`` unless ``found`` can be called to build a choice."""
        if not callable(found) or (self._bases and isinstance(found, self._bases)):
            raise PluginError(f"expected a class or a function, got {found!r}")
        if not inspect.isclass(found):
            return
        if self._bases and not issubclass(found, self._bases):
            wanted = " or ".join(f"{base.__module__}.{base.__name__}" for base in self._bases)
            raise PluginError(f"expected a subclass of {wanted}, got the class {found.__name__}")
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise PluginError(f"the class {found.__name__} lacks {', '.join(_stub(found, name) for name in missing)}")

    def _wanted(self) -> str:
        return " or ".join(_article(base.__name__) for base in self._bases)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def _stub(found: type, name: str) -> str:
    """Return a method that is to be written as it is called: ``fit(model, context, round_config, state)``."""
    method = inspect.getattr_static(found, name)
    if not inspect.isfunction(method):
        return name
    names = [p.name for p in inspect.signature(method).parameters.values() if p.name != "self"]
    return f"{name}({', '.join(names)})"


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
    close = closest(absent, siblings)
    return f"there is no module {absent!r}" + (f"; did you mean {close!r}?" if close else f"; {WHERE}")


def explain(error: BaseException) -> str:
    """Return an error as one line: a ``ValueError`` speaks for itself, others with their type and where they arose.

    Where is the innermost line of a file that is neither ours nor Python's nor an installed package's.
    """
    if isinstance(error, ValueError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(part in frame.filename for part in FOREIGN)]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
