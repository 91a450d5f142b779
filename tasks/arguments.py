"""Arguments of plug-ins: written as inline TOML, and checked against the signature of what they are for."""

import difflib
import inspect
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from types import FunctionType, NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

import tomli_w

SCALARS = {
    bool: "true or false (without quotes)",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    NoneType: "",
}


class PluginError(ValueError):
    """A name, import path or argument that does not fit; the message says what would."""


def check_flag(name: str, value: bool) -> None:
    """Raise ``PluginError`` unless ``value`` is true or false; the text "false" is neither."""
    if not isinstance(value, bool):
        raise PluginError(f"{name} must be true or false (without quotes), not {value!r}")


def check_at_least(part: object, least: float, *names: str) -> None:
    """Raise ``ValueError`` if one of these attributes of a part is below ``least``."""
    for name in names:
        if getattr(part, name) < least:
            raise ValueError(f"{name} = {getattr(part, name)}: must be at least {least}")


def check_above_zero(part: object, *names: str) -> None:
    """Raise ``ValueError`` if one of these attributes of a part is not above 0."""
    for name in names:
        if getattr(part, name) <= 0:
            raise ValueError(f"{name} = {getattr(part, name)}: must be above 0")


def check_shares(part: object, *names: str) -> None:
    """Raise ``ValueError`` if one of these attributes of a part is not from 0 to 1."""
    for name in names:
        if not 0 <= getattr(part, name) <= 1:
            raise ValueError(f"{name} = {getattr(part, name)}: must be from 0 to 1")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return a hint for an unknown word: the closest choice if one is close, and all of them unless they are many.

    >>> did_you_mean("powr", ["power", "root"]), did_you_mean("x", ["power", "root"])
    ("; did you mean 'power'? choices: power, root", '; choices: power, root')
    """
    known = sorted(choices)
    listed = f" choices: {', '.join(known)}" if 0 < len(known) <= 40 else ""
    close = closest(word, known)
    if close:
        return f"; did you mean {close!r}?{listed}"
    return f";{listed}" if listed else ""


def closest(word: str, choices: Iterable[str]) -> str:
    """Return the choice that is closest to a word, whatever the case of its letters; empty if none is close.

    >>> closest("POWR", ["power", "root"]), closest("x", ["power", "root"])
    ('power', '')
    """
    spellings: dict[str, list[str]] = {}
    for choice in choices:
        spellings.setdefault(choice.casefold(), []).append(choice)
    close = difflib.get_close_matches(word.casefold(), spellings, n=1)
    return difflib.get_close_matches(word, spellings[close[0]], n=1, cutoff=0)[0] if close else ""


def parse_args(text: str) -> dict[str, Any]:
    """Parse arguments written as inline TOML without the braces, such as ``power = 2.0, clip = true``.

    Raises
    ------
    PluginError
        If the text is not inline TOML.
    """
    try:
        return cast(dict[str, Any], tomllib.loads(f"args = {{ {text} }}")["args"])
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits, and of too deep brackets
        raise PluginError(
            f"arguments {text!r:.200} are not inline TOML like 'power = 2.0, clip = true': {error}"
        ) from error


def merge_args(base: str, changes: str) -> str:
    """Return the arguments of ``base`` with those of ``changes`` over them; empty ``changes`` clear all.

    Raises
    ------
    PluginError
        If one of the texts is not inline TOML.

    >>> merge_args("alpha = 0.5, min_size = 20", "alpha = 0.1"), merge_args("alpha = 0.5", "")
    ('alpha = 0.1, min_size = 20', '')
    """
    old, new = parse_args(base), parse_args(changes)
    if not new or not old.keys() - new.keys():
        return changes
    return ", ".join(assignment(name, value) for name, value in (old | new).items())


def assignment(name: str, value: Any) -> str:
    """Return ``name = value`` as TOML on one line.

    >>> assignment("pairs", [[1, 7], [2, 0]])
    'pairs = [[1, 7], [2, 0]]'
    """
    key = tomli_w.dumps({name: 0}).removesuffix(" = 0\n")
    return f"{key} = {_inline(value)}"


def _inline(value: Any) -> str:
    """Return a TOML value on one line, which tomli_w does for neither arrays nor tables."""
    if isinstance(value, dict):
        return f"{{ {', '.join(assignment(*item) for item in value.items())} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").removesuffix("\n")


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
    rest = {name for name, parameter in parameters.items() if parameter.kind is parameter.VAR_KEYWORD}
    own = [name for name in parameters if name not in rest and name not in context]
    listed = f"(its arguments: {', '.join(own) or 'none'})"
    for name, value in given.items():
        if name in offered:
            raise PluginError(f"{name} is set by the run itself, not by arguments {listed}")
        if name not in parameters and not rest:
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
    return _kept_signature(layer) if isinstance(layer, (FunctionType, type)) else _read_signature(layer)


@lru_cache(maxsize=256)
def _kept_signature(layer: Callable[..., Any]) -> inspect.Signature:
    """Keep what a function's or class's signature says: every message builds its loss and its method anew."""
    return _read_signature(layer)


def _read_signature(layer: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(layer, eval_str=True)
    except Exception:  # an annotation as text that means nothing here, such as a name imported for type checkers only
        return inspect.signature(layer)
