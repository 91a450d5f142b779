"""Signatures of built-ins, read from the source: which arguments a user can give, of which type, and what they mean.

A dataclass takes its fields and those of its bases; any other class what its ``__init__`` takes, with that of its base
where names are passed on. A description may stand in the docstring of a base.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from server_app.cli.docstrings import docstring
from server_app.cli.source_code import Definition, definition, value
from tasks.arguments import SCALARS, assignment

WORDS = {kind.__name__: words for kind, words in SCALARS.items()}
CONTAINERS = {"Sequence": "a list", "Collection": "a list", "list": "a list", "Mapping": "a table", "dict": "a table"}
NEEDED: Any = object()
"""Default of an argument that must be given."""
Place = tuple[str, Definition]


@dataclass(frozen=True)
class Source:
    """Where a built-in is defined: its module, the class or function there, and the arguments that the run sets."""

    module: str
    node: Definition
    run_sets: frozenset[str]


@dataclass(frozen=True)
class Argument:
    """An argument: its type in words, its default (:data:`NEEDED` if there is none), and what it means."""

    name: str
    type: str
    default: Any
    meaning: str

    @property
    def is_needed(self) -> bool:
        """Whether it must be given."""
        return self.default is NEEDED

    @property
    def written(self) -> str:
        """The argument as it is written with its default: ``q = 0.7``; ``q = ?`` if it must be given."""
        if self.is_needed:
            return f"{self.name} = ?"
        return self.name if self.default is None else assignment(self.name, self.default)


def arguments(source: Source) -> list[Argument]:
    """Return the arguments that a user can give to a built-in, in their order."""
    places = list(_lineage(source.module, source.node))
    meanings = dict[str, str]()
    for _, node in reversed(places):
        meanings |= docstring(node).parameters
    found = dict(_taken(places))
    return [
        Argument(name, in_words(annotation), default, meanings.get(name, ""))
        for name, (annotation, default) in found.items()
        if name not in source.run_sets and "Callable" not in ast.unparse(annotation)
    ]


def _lineage(module: str, node: Definition) -> Iterator[Place]:
    """Yield a function, or a class and its bases in the order in which they are looked through."""
    found = {id(place[1]): place for place in reversed(list(_bases_of(module, node)))}
    yield from reversed(found.values())


def _bases_of(module: str, node: Definition) -> Iterator[Place]:
    yield module, node
    if isinstance(node, ast.ClassDef):
        for base in node.bases:
            name = base.value if isinstance(base, ast.Subscript) else base
            place = definition(module, name.id) if isinstance(name, ast.Name) else None
            if place is not None:
                yield from _bases_of(*place)


def _taken(places: list[Place]) -> Iterator[tuple[str, tuple[ast.expr, Any]]]:
    """Yield the names that a constructor takes with annotation and default; the nearest class that has one decides."""
    seen = set[str]()
    for place, (module, node) in enumerate(places):
        constructor = _constructor(node)
        if constructor is None and isinstance(node, ast.ClassDef) and _is_dataclass(node):
            yield from _fields(places[place:])
            return
        if constructor is None:
            continue
        for name, annotation, default in _parameters(constructor, module):
            if name not in seen:
                seen.add(name)
                yield name, (annotation, default)
        if constructor.args.kwarg is None:
            return


def _constructor(node: Definition) -> ast.FunctionDef | None:
    if isinstance(node, ast.FunctionDef):
        return node
    own = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    return own[0] if own else None


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _fields(places: list[Place]) -> Iterator[tuple[str, tuple[ast.expr, Any]]]:
    """Yield the fields of a dataclass, those of its bases first; a field that comes again keeps its place."""
    found = dict[str, tuple[ast.expr, Any]]()
    for module, node in reversed(places):
        if isinstance(node, ast.ClassDef) and _is_dataclass(node):
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and not _is_state(each):
                    found[each.target.id] = each.annotation, _default(each.value, module)
    for name, (annotation, default) in found.items():
        if not ast.unparse(annotation).startswith("ClassVar"):
            yield name, (annotation, default)


def _is_state(field: ast.AnnAssign) -> bool:
    """Tell whether a field is no argument of the constructor."""
    return field.value is not None and "init=False" in ast.unparse(field.value)


def _parameters(function: ast.FunctionDef, module: str) -> Iterator[tuple[str, ast.expr, Any]]:
    taken = function.args
    plain = [arg for arg in (*taken.posonlyargs, *taken.args) if arg.arg != "self"]
    missing = len(plain) - len(taken.defaults)
    defaults = [*[None] * missing, *taken.defaults, *taken.kw_defaults]
    for arg, default in zip([*plain, *taken.kwonlyargs], defaults, strict=True):
        yield arg.arg, arg.annotation or ast.Constant(None), _default(default, module)


def _default(node: ast.expr | None, module: str) -> Any:
    if node is None:
        return NEEDED
    try:
        found = value(node, module)
    except ValueError:
        return ast.unparse(node)
    return list(found) if isinstance(found, tuple) else found


def in_words(annotation: ast.expr) -> str:
    """Return what may be given for an annotation.

    >>> in_words(ast.parse("Literal['a', 'b'] | None", mode="eval").body)
    "'a' or 'b'"
    """
    match annotation:
        case ast.BinOp(left, ast.BitOr(), right):
            return " or ".join(dict.fromkeys(filter(None, [in_words(left), in_words(right)])))
        case ast.Subscript(ast.Name("Literal"), choices):
            each = choices.elts if isinstance(choices, ast.Tuple) else [choices]
            return " or ".join(map(ast.unparse, each))
        case ast.Subscript(ast.Name(name)) if name in CONTAINERS:
            return CONTAINERS[name]
        case ast.Name(name) if name in WORDS:
            return WORDS[name]
        case ast.Constant(None):
            return ""
    return ast.unparse(annotation)
