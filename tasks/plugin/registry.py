"""The choices of one kind: built-ins by short name, anything else by import path."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from tasks.plugin.arguments import bind, parse_args
from tasks.plugin.errors import PluginError, did_you_mean, explain
from tasks.plugin.importing import load_object, looks_like_path

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
    """Return a method that is to be written as it is called: ``fit(model, kit, plan, state)``."""
    method = inspect.getattr_static(found, name)
    if not inspect.isfunction(method):
        return name
    names = [p.name for p in inspect.signature(method).parameters.values() if p.name != "self"]
    return f"{name}({', '.join(names)})"
