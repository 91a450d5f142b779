"""The packages' ``__init__`` are their public face: examples and guides import from there, and it is documented."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

OURS = ("tasks", "client_app", "strategies", "server_app")
PUBLIC = (
    "tasks",
    "tasks.encoders",
    "tasks.models",
    "tasks.noise",
    "tasks.own_data",
    "tasks.partition",
    "client_app.attacks",
    "client_app.losses",
    "client_app.methods",
    "strategies",
    "strategies.aggregators",
    "strategies.detection",
    "server_app",
    "server_app.callbacks",
    "server_app.report",
)
LAZY = ("tasks", "strategies", "server_app")
LIGHT = (  # package, what it must not load, and what may be loaded before it: it takes seconds, and they share it
    ("tasks", {"torch", "flwr", "numpy"}, ()),
    ("strategies", {"torch", "flwr", "numpy"}, ()),
    ("server_app", {"torch", "flwr", "numpy"}, ()),
    ("client_app.app", {"torch", "scipy", "sklearn", "ray"}, ()),  # a node's process for one message
    ("strategies.aggregators", {"torch", "flwr"}, ()),
    ("strategies.detection", {"flwr"}, ("torch",)),
    ("client_app.losses", {"flwr", "ray", "sklearn", "scipy", "torchvision"}, ("torch",)),
    ("tasks.noise", {"flwr"}, ("torch",)),
    ("tasks.partition", {"flwr"}, ("torch",)),
    ("client_app.handlers", {"scipy", "sklearn", "torchvision", "ray"}, ("torch", "flwr.clientapp")),  # a trainer
)
LOADED = """
import importlib, json, os, sys
for package, before in json.loads(sys.argv[1]):
    for name in before:
        importlib.import_module(name)
    if os.fork() == 0:
        importlib.import_module(package)
        print(json.dumps([package, list(sys.modules)]), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{package} cannot be imported")
"""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sources() -> Iterator[tuple[str, str]]:
    """Every example, and every block of Python in a page, by its place."""
    for file in sorted((ROOT / "examples").glob("*.py")):
        yield file.name, file.read_text()
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
            yield f"{page.name} {number}", block


def imported(source: str) -> Iterator[tuple[str, str]]:
    """Each name that is imported from one of our packages: ``(module, name)``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] in OURS)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
            yield from ((node.module, alias.name) for alias in node.names)


SOURCES = dict(sources())
NAMES = [(package, name) for package in PUBLIC for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize("place", SOURCES)
def test_examples_and_guides_import_what_is_public(place: str) -> None:
    assert [found for found in imported(SOURCES[place]) if found not in NAMES] == []


def test_most_examples_import_something() -> None:
    assert len([place for place, source in SOURCES.items() if [*imported(source)]]) > 10


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_what_is_public_is_there_and_documented(package: str, name: str) -> None:
    found = getattr(importlib.import_module(package), name)
    if inspect.isclass(found) or inspect.isroutine(found):
        assert inspect.getdoc(found)
        assert found.__module__.split(".")[0] == package.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("package", LAZY)
def test_the_names_of_a_lazy_package_are_those_that_type_checkers_see(package: str) -> None:
    module = importlib.import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    seen = {alias.name for node in nodes if node.module.startswith(package) for alias in node.names}
    assert seen == set(module.__all__) == {name for names in module._MODULES.values() for name in names}
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """The modules that are there after the import of each package, in a fork of a process that has no other of ours."""
    asked = json.dumps([(package, before) for package, _, before in LIGHT])
    done = subprocess.run([sys.executable, "-c", LOADED, asked], check=True, capture_output=True, text=True, cwd=ROOT)
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize(("package", "slow"), [(package, slow) for package, slow, _ in LIGHT])
def test_a_package_is_imported_without_what_it_does_not_need(
    package: str, slow: set[str], loaded: dict[str, list[str]]
) -> None:
    assert package in loaded[package]
    assert slow & set(loaded[package]) == set()


@pytest.mark.parametrize("file", sorted(path for name in OURS for path in (ROOT / name).rglob("__init__.py")))
def test_every_package_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text()))
