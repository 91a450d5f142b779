"""Nothing in the app runs code that data may hold: no pickle and its like, no eval, but for named exceptions."""

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from torchvision import datasets

from tasks.base import DataError
from tasks.registry import TASKS
from tests.conftest import ROOT

PACKAGES = ("tasks", "client_app", "strategies", "server_app", "examples", "benchmarks")
FILES = sorted(path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
UNPICKLING = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas", "yaml"}
RUNNING = {"eval", "exec", "compile", "__import__", "read_pickle", "unsafe_load", "full_load"}
LABEL_FILE = "tasks/noise/human.py"  # .pt on the reader's own disk, plain arrays only
ENCODERS = "tasks/encoders/images.py"  # weights on the reader's own disk, plain arrays only
CIFAR = "tasks/images.py"  # the published files, after their MD5 sums have been compared

PIPE = "server_app/engine/wire.py"  # between a process and those that it has forked, a socket pair without a name
COMPOSE = "server_app/cli/site_compose.py"  # compose files of the operator's own checkout, plain values only


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the name of each function that is called, with the owner's name if it is a plain one, and its constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            owner = function.value if isinstance(function, ast.Attribute) else None
            prefix = f"{owner.id}." if isinstance(owner, ast.Name) else "." if owner else ""
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            constants = {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
            yield prefix + name, dict(constants)


def findings(source: str) -> list[str]:
    """What in a module could run code that it reads."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        found += [f"import {name}" for name in names if name.split(".")[0] in UNPICKLING]
        found += [f"import {name}" for name in names if f"{name}.".startswith("torchvision.datasets.")]
    for name, constants in calls(tree):
        if name in RUNNING or name.rpartition(".")[2] in RUNNING - {"eval", "exec", "compile"}:
            found.append(name)
        if name == "torch.load":
            found.append(f"torch.load, weights_only={constants.get('weights_only')}")
        if name in ("np.load", "numpy.load") and constants.get("allow_pickle") is not False:
            found.append("np.load without allow_pickle=False")
    return found


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 150
    assert {LABEL_FILE, CIFAR} <= set(FILES)


@pytest.mark.parametrize("name", [name for name in FILES if name not in (LABEL_FILE, CIFAR, ENCODERS, PIPE, COMPOSE)])
def test_no_module_reads_what_could_run(name: str) -> None:
    assert findings((ROOT / name).read_text()) == []


def test_compose_files_are_read_as_plain_values() -> None:
    source = (ROOT / COMPOSE).read_text()
    assert {*findings(source)} == {"import yaml"}
    used = {name for name, _ in calls(ast.parse(source)) if name.startswith("yaml.")}
    assert used == {"yaml.safe_load", "yaml.safe_dump"}


@pytest.mark.parametrize("name", [LABEL_FILE, ENCODERS])
def test_files_of_torch_are_read_as_plain_arrays(name: str) -> None:
    assert findings((ROOT / name).read_text()) == ["torch.load, weights_only=True"]


class Payload:
    """What a pickle runs when it is read."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("task", ["cifar-10", "cifar-100"])
def test_cifar_is_unpickled_by_torchvision_and_only_after_its_sums_are_right(task: str, tmp_path: Path) -> None:
    imported = [line for line in findings((ROOT / CIFAR).read_text()) if "utils" not in line]
    assert imported == ["import torchvision.datasets"]
    loaded = TASKS.build(task, data_path=tmp_path)
    reader = getattr(datasets, loaded.reader)
    folder = tmp_path / reader.base_folder
    folder.mkdir()
    for name in [name for name, _ in reader.train_list + reader.test_list] + [reader.meta["filename"]]:
        (folder / name).write_bytes(pickle.dumps({"data": Payload(tmp_path / "ran")}))
    with pytest.raises(DataError):
        loaded.train_examples()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import joblib.numpy_pickle",
        "from marshal import loads",
        "def f():\n    import dill",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=True)",
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "eval('1')",
        "exec(text)",
        "__import__(name)",
        "from torchvision import datasets",
        "import torchvision.datasets",
        "from torchvision.datasets import CIFAR10",
        "frame = table.read_pickle('x')",
    ],
)
def test_the_check_finds(code: str) -> None:
    assert findings(code)


def test_the_check_lets_through_what_is_safe() -> None:
    assert not findings("import re, numpy as np\nmodel.eval()\nre.compile('x')\nnp.load(p, allow_pickle=False)\n")
