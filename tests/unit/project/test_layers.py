import ast
import functools
import re

import pytest

from tests.conftest import ROOT

ALLOWED = {
    "tasks": {"tasks"},
    "client_app": {"client_app", "tasks"},
    "strategies": {"strategies", "tasks"},
    "server_app": {"server_app", "client_app", "strategies", "tasks"},
}
FLOWER_RIM = {
    "client_app/mods.py",
    "client_app/cohorts/answers.py",
    "client_app/app.py",
    "client_app/handlers.py",
    "client_app/trainer_messages.py",
    "client_app/session.py",
    "client_app/node.py",
    "client_app/state.py",
    "strategies/validation.py",
    "strategies/fedcorr.py",
    "strategies/fedned.py",
    "strategies/fedrn.py",
    "strategies/base.py",
    "strategies/query.py",
    "strategies/privacy.py",
    "strategies/robust.py",
    "strategies/noise_partition.py",
    "tasks/records.py",
    "tasks/wire.py",
}
IMPORT_PATH = re.compile(rf"({'|'.join(ALLOWED)})(\.\w+)+(:\w*)?")
FILES = sorted(path.relative_to(ROOT).as_posix() for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


@functools.cache
def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


def imports(name: str, at_import_time: bool = False) -> set[str]:
    """The modules that a file imports; optionally only those outside of functions and type checking."""
    tree = parsed(name)
    nodes = ast.walk(tree) if not at_import_time else iter(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def test_there_is_something_to_check():
    assert len(FILES) > 60


@pytest.mark.parametrize("name", FILES)
def test_imports_go_one_way(name: str):
    package = name.split("/", maxsplit=1)[0]
    ours = {module.split(".")[0] for module in imports(name)} & ALLOWED.keys()
    assert ours <= ALLOWED[package]


def named_modules(name: str) -> set[str]:
    """Modules of ours that a file names in a text, as it would to load them by their import path."""
    texts = {node.value for node in ast.walk(parsed(name)) if isinstance(node, ast.Constant)}
    return {text for text in texts if isinstance(text, str) and IMPORT_PATH.fullmatch(text)}


@pytest.mark.parametrize("name", FILES)
def test_what_is_loaded_by_name_goes_the_same_way(name: str):
    assert {path.split(".")[0] for path in named_modules(name)} <= ALLOWED[name.split("/", maxsplit=1)[0]]


def test_import_paths_are_recognised():
    assert named_modules("client_app/app.py") == {"client_app.trainer_messages:answer"}


@pytest.mark.parametrize("name", FILES)
def test_flower_is_imported_at_the_rim_only(name: str):
    uses_flower = any(module.split(".")[0] == "flwr" for module in imports(name))
    assert not uses_flower or name in FLOWER_RIM or name.startswith("server_app/")


@pytest.mark.parametrize("name", FILES)
def test_torchvision_is_imported_only_where_it_is_used(name: str):
    assert not any(module.split(".")[0] == "torchvision" for module in imports(name, at_import_time=True))


def test_torchvision_works_beside_this_torch():
    import torch
    import torchvision

    boxes, scores = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.1]]), torch.tensor([0.9, 0.8])
    assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [0]
