"""Short names and import paths for everything a user can choose or bring along."""

import difflib
import importlib
import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class PluginError(ValueError):
    """A name, import path or argument that does not fit; the message says what would."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One built-in choice: its short name, the factory, one line about it and its paper."""

    name: str
    factory: Callable[..., T]
    summary: str
    paper: str = ""


class Registry(Generic[T]):
    """The choices of one kind (loss, aggregator, ...): built-ins by name, anything else by import path."""

    def __init__(self, kind: str, base: type[T] | None = None) -> None:
        self.kind = kind
        self._base = base
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, paper: str = "") -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Register a factory under ``name``; its docstring's first line becomes the summary."""

        def add(factory: Callable[..., T]) -> Callable[..., T]:
            assert name not in self._entries, f"{self.kind} {name} is registered twice"
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
            If the name is unknown or the path cannot be imported.
        """
        if name in self._entries:
            return self._entries[name].factory
        if ":" in name:
            found = load_object(name, self.kind)
            if not callable(found):
                raise PluginError(f"{self.kind} {name!r}: expected a class or a function, got {found!r}")
            return cast(Callable[..., T], found)
        raise PluginError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}")

    def build(self, name: str, args: str | Mapping[str, Any] = "", **context: Any) -> T:
        """Build a choice from its arguments, plus those ``context`` values that its signature asks for.

        Raises
        ------
        PluginError
            If an argument is missing, unknown or refused by the factory, or what it builds is something else.
        """
        factory = self.find(name)
        given = parse_args(args) if isinstance(args, str) else dict(args)
        accepted = accepted_names(factory)
        offered = {key: value for key, value in context.items() if key in accepted}
        if offered.keys() & given.keys():
            taken = ", ".join(sorted(offered.keys() & given.keys()))
            raise PluginError(f"{self.kind} {name!r}: {taken} is set by the run itself, not by arguments")
        own = ", ".join(key for key in accepted if key not in context) or "none"
        try:
            inspect.signature(factory).bind(**offered, **given)
        except TypeError as error:
            raise PluginError(f"{self.kind} {name!r}: {error} (its arguments: {own})") from error
        try:
            built = factory(**offered, **given)
        except (TypeError, ValueError) as error:
            raise PluginError(f"{self.kind} {name!r}: {error}") from error
        if self._base is not None and not isinstance(built, self._base):
            raise PluginError(f"{self.kind} {name!r}: expected a {self._base.__name__}, got a {type(built).__name__}")
        return built


def accepted_names(factory: Callable[..., Any]) -> list[str]:
    """Return the names of a factory's arguments; a class with ``**kwargs`` takes those of its bases too."""
    bases = factory.__mro__[:-1] if inspect.isclass(factory) else ()
    layers: list[Any] = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)]
    names: list[str] = []
    for layer in layers or [factory]:
        parameters = inspect.signature(layer).parameters.values()
        names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(dict.fromkeys(names))


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


def load_object(path: str, kind: str) -> Any:
    """Import ``package.module:Name``.

    Raises
    ------
    PluginError
        If the module or the name in it does not exist; errors inside the module are shown too.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module is the user's: whatever it raises belongs in the message
        raise PluginError(f"{kind} {path!r}: cannot import {module_name}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise PluginError(f"{kind} {path!r}: {module_name} has no {attribute!r}{did_you_mean(attribute, public)}")
    return getattr(module, attribute)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return a hint for an unknown word: the closest choice if one is close, and all of them."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} choices: {', '.join(known)}" if len(known) <= 40 else hint
