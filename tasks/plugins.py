"""Plug-ins: short names and import paths for everything that a user can choose or bring along, and their arguments."""

import difflib
import importlib
import inspect
import pkgutil
import re
import sysconfig
import tomllib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, cast, get_args, get_origin

ROOT = Path(__file__).resolve().parents[2]
OURS = [f"{ROOT / package}/" for package in ("tasks", "client_app", "strategies", "server_app")]
FOREIGN = ("<frozen", "site-packages", sysconfig.get_path("stdlib"), *OURS)


class PluginError(ValueError):
    """A name, import path or argument that does not fit; the message says what would."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return a hint for an unknown word: the closest choice if one is close, and all of them unless they are many.

    >>> did_you_mean("powr", ["power", "root"]), did_you_mean("x", ["power", "root"])
    ("; did you mean 'power'? choices: power, root", '; choices: power, root')
    """
    known = sorted(choices)
    listed = f" choices: {', '.join(known)}" if 0 < len(known) <= 40 else ""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?{listed}"
    return f";{listed}" if listed else ""


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


SCALARS = {
    bool: "true or false (without quotes)",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    NoneType: "",
}


def parse_args(text: str) -> dict[str, Any]:
    """Parse arguments written as inline TOML without the braces, such as ``power = 2.0, clip = true``.

    Raises
    ------
    PluginError
        If the text is not inline TOML.
    """
    try:
        return cast(dict[str, Any], tomllib.loads(f"args = {{ {text} }}")["args"])
    except tomllib.TOMLDecodeError as error:
        raise PluginError(f"arguments {text!r} are not inline TOML like 'power = 2.0, clip = true': {error}") from error


def accepted_names(factory: Callable[..., Any]) -> list[str]:
    """Return the names of a factory's arguments; a class with ``**kwargs`` takes those of its bases too."""
    return [name for name, parameter in _parameters(factory).items() if parameter.kind is not parameter.VAR_KEYWORD]


def bind(factory: Callable[..., Any], given: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a factory: the ``given`` ones and those values of ``context`` that it has a name for.

    Raises
    ------
    PluginError
        With the first argument that is unknown, missing, of another type than annotated, or set by the run itself.
    """
    parameters = _parameters(factory)
    offered = {name: value for name, value in context.items() if name in parameters}
    own = [name for name in accepted_names(factory) if name not in context]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    listed = f"(its arguments: {', '.join(own) or 'none'})"
    for name, value in given.items():
        if name in offered:
            raise PluginError(f"{name} is set by the run itself, not by arguments {listed}")
        if name not in parameters and not takes_any:
            hint = did_you_mean(name, own).partition("?")[0]
            hint = f"{hint}?" if "did you mean" in hint else ""
            raise PluginError(f"unknown argument {name!r}{hint} {listed}")
        if name in parameters and not fits(value, parameters[name].annotation):
            wanted = describe(parameters[name].annotation)
            raise PluginError(f"argument {name} must be {wanted}, not {value!r} {listed}")
    missing = [name for name in own if parameters[name].default is inspect.Parameter.empty and name not in given]
    if missing:
        raise PluginError(f"missing argument {', '.join(missing)} {listed}")
    return {**offered, **given}


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters by name; one of kind ``VAR_KEYWORD`` is left only if nobody says which names it takes."""
    found: dict[str, inspect.Parameter] = {}
    for layer in _layers(factory):
        parameters = list(_signature(layer).parameters.values())
        rest = [p for p in parameters if p.kind is p.VAR_KEYWORD]
        names = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"]
        found = {p.name: p for p in names} | found
        if not rest:
            return {name: p for name, p in found.items() if p.kind is not p.VAR_KEYWORD}
        found = {**found, rest[0].name: rest[0]}
    return found


def _layers(factory: Callable[..., Any]) -> Iterator[Any]:
    """Yield the constructors of a class and its bases, each of which may pass names on to the next; or the function."""
    bases = factory.__mro__[:-1] if inspect.isclass(factory) else ()
    constructors = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)]
    yield from constructors or [factory]


def _signature(layer: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(layer, eval_str=True)
    except Exception:  # an annotation as text that means nothing here, such as a name imported for type checkers only
        return inspect.signature(layer)


def fits(value: object, annotation: Any) -> bool:
    """Tell whether a value is of an annotated type; annotations other than plain values and unions are not judged.

    >>> fits(2, float), fits(2.0, int), fits(True, int), fits(None, int | None), fits("x", list[int])
    (True, False, False, True, True)
    """
    if get_origin(annotation) in (Union, UnionType):
        return any(fits(value, part) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(annotation))
    if annotation is float:
        return type(value) in (int, float)
    return type(value) is annotation if annotation in SCALARS else True


def describe(annotation: Any) -> str:
    """Return what may be given for an annotation in words: "a number", "'a' or 'b'"."""
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(filter(None, map(describe, get_args(annotation))))
    if get_origin(annotation) is Literal:
        return " or ".join(repr(choice) for choice in get_args(annotation))
    return SCALARS[annotation]


T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # what TOML takes as a key without quotes


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One built-in choice: its short name, the factory, one line about it and its paper."""

    name: str
    factory: Callable[..., T]
    summary: str
    paper: str = ""


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
    """

    def __init__(self, kind: str, base: type[T] | None = None, *others: type, listed: str | None = None) -> None:
        self.kind = kind
        self.listed = listed or kind.replace(" ", "-")
        self._bases = (base, *others) if base else others
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, paper: str = "") -> Callable[[F], F]:
        """Register the class or function below under ``name``; its docstring's first line becomes the summary.

        Raises
        ------
        PluginError
            If a class is no subclass of what this registry holds, or lacks a method of it.
        """

        def add(factory: F) -> F:
            assert name not in self._entries, f"{self.kind} {name} is registered twice"
            self._check_factory(factory)
            summary = (inspect.getdoc(factory) or "").split("\n")[0].rstrip(".")
            self._entries[name] = Entry(name, factory, summary, paper)
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
