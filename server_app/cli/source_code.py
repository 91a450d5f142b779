"""Source code of the app and of Flower's strategies, as syntax trees: to import it all takes several seconds.

What stands at the top of a module can be looked up by name, also where another module has imported it.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = ("tasks", "client_app", "strategies", "server_app")
Definition = ast.ClassDef | ast.FunctionDef


@cache
def texts() -> dict[str, str]:
    """Return the source of our modules by name."""
    files = [file for package in OURS for file in sorted((ROOT / package).rglob("*.py"))]
    return {_name(file): file.read_text(encoding="utf-8") for file in files}


def _name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree(module: str) -> ast.Module:
    """Return the syntax tree of one of our modules or of Flower's; an empty one for any other."""
    if module.partition(".")[0] in OURS:
        return ast.parse(texts().get(module, ""))
    if not module.startswith("flwr."):
        return ast.parse("")
    file = _file(module)
    return ast.parse(file.read_text(encoding="utf-8") if file.is_file() else "")


@cache
def _file(module: str) -> Path:
    """Return the file of a module of ours or of Flower's."""
    base = ROOT if module.partition(".")[0] in OURS else Path(str(distribution("flwr").locate_file("")))
    package = base / module.replace(".", "/") / "__init__.py"
    return package if package.is_file() else package.parent.with_suffix(".py")


def sources(*marks: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield those of our modules whose text holds one of the marks: to parse the others would take most of the time."""
    for module, text in texts().items():
        if any(mark in text for mark in marks):
            yield module, tree(module)


@cache
def constants(module: str) -> Mapping[str, ast.expr]:
    """Return what a module assigns to names at its top."""
    found = {}
    for node in tree(module).body:
        match node:
            case ast.Assign([ast.Name(variable)], value) | ast.AnnAssign(ast.Name(variable), _, ast.expr() as value):
                found[variable] = value
            case ast.Assign([ast.Tuple(names)], ast.Tuple(values)):
                found |= {name.id: each for name, each in zip(names, values, strict=True) if isinstance(name, ast.Name)}
    return found


def definition(module: str, name: str) -> tuple[str, Definition] | None:
    """Return the class or function that a name means in a module, with the module that defines it; None if unknown."""
    place = _place(module, name)
    if place is None:
        return None
    for node in tree(place[0]).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == place[1]:
            return place[0], node
    return None


def _place(module: str, name: str) -> tuple[str, str] | None:
    """Return module and name under which something is defined that a module has or imports."""
    if name in constants(module):
        return module, name
    for node in tree(module).body:
        match node:
            case ast.ClassDef(found) | ast.FunctionDef(found) if found == name:
                return module, name
            case ast.ImportFrom(origin, aliases, level):
                for alias in aliases:
                    if (alias.asname or alias.name) == name:
                        return _place(_absolute(module, origin or "", level or 0), alias.name)
    return None


def _absolute(module: str, origin: str, level: int) -> str:
    """Return the module that ``from ...origin import`` means in a module."""
    if not level:
        return origin
    parents = module.split(".")
    kept = parents[: len(parents) - level + (_file(module).name == "__init__.py")]
    return ".".join([*kept, *filter(None, [origin])])


def value(node: ast.expr, module: str) -> Any:
    """Return the value of a literal, a constant of the module or one that it imports, or a quotient of these.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    match node:
        case ast.Name(name):
            place = _place(module, name)
            if place is None or place[1] not in constants(place[0]):
                raise ValueError(f"{name} is no constant of {module}")
            return value(constants(place[0])[place[1]], place[0])
        case ast.BinOp(left, ast.Div(), right):
            return value(left, module) / value(right, module)
        case ast.Call(ast.Name("field"), _, [ast.keyword("default_factory", ast.Name("dict"))]):
            return {}
        case ast.Call(ast.Name("tuple"), [ast.Name(name)]) if isinstance(constants(module).get(name), ast.Dict):
            keys = constants(module)[name]
            assert isinstance(keys, ast.Dict)
            return tuple(value(key, module) for key in keys.keys if key is not None)
    return ast.literal_eval(node)
