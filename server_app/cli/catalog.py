"""Catalog of the built-in choices, read from the source: to import them all takes torch and Flower, several seconds.

A built-in is a class or function at the top of a module of ours, decorated with ``@REGISTRY.register(name, paper)``, in
which both are texts or constants of that module. The first line of its docstring describes it. Tests hold that the
catalog says what the registries say.
"""

import ast
import runpy
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from server_app.stock import STOCK, stock_name

ROOT = Path(__file__).resolve().parents[2]
OURS = ("tasks", "client_app", "strategies", "server_app")
# The packages that hold built-in choices: each registry in one of them is a kind, in this order.
PACKAGES = (
    "tasks.registry",
    "tasks.encoders",
    "tasks.models",
    "client_app.losses",
    "tasks.noise",
    "tasks.partition",
    "client_app.attacks",
    "client_app.methods",
    "strategies.aggregators",
    "strategies.server_optimizers",
    "server_app.strategy",
    "strategies.detection",
    "server_app.callbacks",
)
PRESETS = ROOT / "client_app/losses/presets.py"

Choices = list[tuple[str, str]]


def built_ins() -> dict[str, Choices]:
    """Return (name, description) of every built-in choice, by kind; presets come after the losses they belong to."""
    entries: dict[str, Choices] = defaultdict(list)
    registries: dict[str, str] = {}  # by the name of the variable, the kind
    for tree in _sources(".register(", "Registry("):
        registries |= dict(_registries(tree))
        for registry, name, text in _entries(tree):
            entries[registry].append((name, text))
    entries["STRATEGIES"] += _stock()
    found: dict[str, Choices] = {}
    for variable in _in_order():
        if variable in registries:
            found[registries[variable]] = sorted(entries[variable])
        if registries.get(variable) == "loss":
            found["preset"] = _presets()
    return found


def names(kind: str) -> list[str]:
    """Return the names of the built-in choices of one kind; takes a quarter of the time that :func:`built_ins` does."""
    if kind == "preset":
        return [name for name, _ in _presets()]
    [variable] = [name for tree in _sources("Registry(") for name, listed in _registries(tree) if listed == kind]
    entries = [entry for tree in _sources(f"@{variable}.register(") for entry in _entries(tree)]
    found = [name for registry, name, _ in entries if registry == variable]
    return found + [stock_name(strategy) for strategy in STOCK] if kind == "strategy" else found


def _sources(*marks: str) -> Iterator[ast.Module]:
    for text in _texts():
        if any(mark in text for mark in marks):  # to parse the others would take most of the time
            yield ast.parse(text)


@cache
def _texts() -> list[str]:
    files = [file for package in OURS for file in sorted((ROOT / package).rglob("*.py"))]
    return [file.read_text(encoding="utf-8") for file in files]


def _registries(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield variable and kind of each registry that a module makes."""
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(variable)], ast.Call(ast.Name(made), [ast.Constant(str(kind)), *_], keywords)):
                if made.endswith("Registry"):
                    named = {each.arg: each.value for each in keywords}
                    listed = ast.literal_eval(named["listed"]) if "listed" in named else kind.replace(" ", "-")
                    yield variable, listed


def _entries(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yield registry, name and description of what a module registers."""
    constants = dict(_constants(tree))
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(ast.Attribute(ast.Name(registry), "register"), [name, *paper]):
                    papers = [constants[each.id] if isinstance(each, ast.Name) else each for each in paper]
                    yield registry, ast.literal_eval(name), described(node, *map(ast.literal_eval, papers))


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(variable)], value):
                yield variable, value


def described(node: ast.FunctionDef | ast.ClassDef, paper: str = "") -> str:
    """Return the first line of a docstring, with the paper behind it."""
    summary = (ast.get_docstring(node) or "").split("\n")[0].rstrip(".")
    return f"{summary} ({paper})" if paper else summary


def _stock() -> Iterator[tuple[str, str]]:
    for strategy, paper in STOCK.items():
        file = Path(str(distribution("flwr").locate_file(f"flwr/serverapp/strategy/{strategy.lower()}.py")))
        nodes = ast.parse(file.read_text(encoding="utf-8")).body
        [node] = [each for each in nodes if isinstance(each, ast.ClassDef) and each.name == strategy]
        yield stock_name(strategy), described(node, paper)


def _presets() -> Choices:
    tables = runpy.run_path(str(PRESETS))["PRESETS"]  # the file alone: its package imports torch
    return [(name, f"parameters of {len(losses)} losses") for name, losses in sorted(tables.items())]


@cache
def _in_order() -> list[str]:
    """Return the names that the packages of built-ins import or define, in the order of their source."""
    names = []
    for package in PACKAGES:
        place = ROOT / package.replace(".", "/")
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            match node:
                case ast.ImportFrom():
                    names += [alias.name for alias in node.names]
                case ast.Assign([ast.Name(variable)]):
                    names.append(variable)
    return list(dict.fromkeys(names))
