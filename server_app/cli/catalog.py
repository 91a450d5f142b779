"""Catalog of the built-in choices, read from the source: to import them all takes torch and Flower, several seconds.

A built-in is a class or function at the top of a module of ours, decorated with ``@REGISTRY.register(name, paper,
*links)``, in which all are texts or constants of that module. The first line of its docstring describes it. Tests hold
that the catalog says what the registries say.
"""

import ast
import runpy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from server_app.cli.docstrings import docstring
from server_app.cli.signatures import Source
from server_app.cli.source_code import ROOT, Definition, constants, sources, tree, value
from server_app.stock import STOCK, stock_name

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


@dataclass(frozen=True)
class Choice:
    """One choice: name, a line about it, paper and links, where a built-in is defined, options of a recipe by axis."""

    name: str
    summary: str
    paper: str = ""
    links: tuple[str, ...] = ()
    source: Source | None = None
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """The line about it, with the paper behind."""
        return f"{self.summary} ({self.paper})" if self.paper else self.summary


@dataclass(frozen=True)
class Kind:
    """A registry as a module makes it: what ``winnow list`` calls it, and the arguments that the run sets."""

    listed: str
    run_sets: frozenset[str]


def built_ins() -> dict[str, list[Choice]]:
    """Return every built-in choice, by kind; presets come after the losses they belong to."""
    registries: dict[str, Kind] = {}  # by the name of the variable
    entries: dict[str, list[Entry]] = defaultdict(list)
    for module, parsed in sources(".register(", "Registry("):
        registries |= dict(_registries(module, parsed))
        for entry in _entries(module, parsed):
            entries[entry.registry].append(entry)
    entries["STRATEGIES"] += _stock()
    found: dict[str, list[Choice]] = {}
    for variable in _in_order():
        if kind := registries.get(variable):
            choices = [entry.choice(kind) for entry in entries[variable]]
            found[kind.listed] = sorted(choices, key=lambda choice: choice.name)
            if kind.listed == "loss":
                found["preset"] = _presets()
    return found


def names(kind: str) -> list[str]:
    """Return the names of the built-in choices of one kind; takes a quarter of the time that :func:`built_ins` does."""
    if kind == "preset":
        return [choice.name for choice in _presets()]
    registries = [each for module, parsed in sources("Registry(") for each in _registries(module, parsed)]
    [variable] = [name for name, found in registries if found.listed == kind]
    marked = sources(f"@{variable}.register(")
    found = [
        entry.name for module, parsed in marked for entry in _entries(module, parsed) if entry.registry == variable
    ]
    return found + [stock_name(strategy) for strategy in STOCK] if kind == "strategy" else found


@dataclass(frozen=True)
class Entry:
    """What a module registers: in which registry, under which name, with which papers."""

    registry: str
    name: str
    papers: tuple[str, ...]
    module: str
    node: Definition

    def choice(self, kind: Kind) -> Choice:
        """Return it as a choice of its kind."""
        paper, *links = self.papers or ("",)
        source = Source(self.module, self.node, kind.run_sets)
        return Choice(self.name, docstring(self.node).summary, paper, tuple(links), source)


def _registries(module: str, parsed: ast.Module) -> Iterator[tuple[str, Kind]]:
    """Yield variable and kind of each registry that a module makes."""
    for node in parsed.body:
        match node:
            case ast.Assign([ast.Name(variable)], ast.Call(ast.Name(made), [ast.Constant(str(kind)), *_], keywords)):
                if made.endswith("Registry"):
                    named = {each.arg: value(each.value, module) for each in keywords if each.arg}
                    listed = named.get("listed", kind.replace(" ", "-"))
                    yield variable, Kind(listed, frozenset(named.get("run_sets", ())))


def _entries(module: str, parsed: ast.Module) -> Iterator[Entry]:
    """Yield what a module registers."""
    for node in parsed.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(ast.Attribute(ast.Name(registry), "register"), [name, *papers]):
                    found = [each for paper in papers for each in _texts(paper, module)]
                    yield Entry(registry, ast.literal_eval(name), tuple(found), module, node)


def _texts(node: ast.expr, module: str) -> tuple[str, ...]:
    """Return the texts that an argument stands for: one, or those of a constant after a star."""
    if isinstance(node, ast.Starred):
        return tuple(value(node.value, module))
    return (value(node, module),)


def _stock() -> Iterator[Entry]:
    for strategy, papers in STOCK.items():
        module = f"flwr.serverapp.strategy.{strategy.lower()}"
        [node] = [each for each in tree(module).body if isinstance(each, ast.ClassDef) and each.name == strategy]
        yield Entry("STRATEGIES", stock_name(strategy), papers, module, node)


def presets() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Return the published parameters by preset and loss; the file alone is read, its package imports torch."""
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]] = runpy.run_path(str(PRESETS))["PRESETS"]
    return tables


def _presets() -> list[Choice]:
    return [Choice(name, f"parameters of {len(losses)} losses") for name, losses in sorted(presets().items())]


@cache
def _in_order() -> list[str]:
    """Return the names that the packages of built-ins import or define, in the order of their source."""
    found = []
    for package in PACKAGES:
        for node in tree(package).body:
            match node:
                case ast.ImportFrom():
                    found += [alias.name for alias in node.names]
        found += constants(package)
    return list(dict.fromkeys(found))
