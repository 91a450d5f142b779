"""Plug-ins: built-ins and import paths, arguments, and the message of every mistake, word by word."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client_app.losses import LOSSES
from client_app.methods import METHODS
from strategies.aggregators import AGGREGATORS
from tasks.arguments import merge_args
from tasks.models import MODELS
from tasks.noise import NOISES, RATE_DISTRIBUTIONS
from tasks.partition import PARTITIONS
from tasks.plugins import PluginError, Registry, parse_args
from tasks.registry import TASKS

NUMBER = 3
MINE = '''
from typing import Any, Literal

from client_app.methods import ClientMethod
from client_app.methods.sgd import LocalSGD

NUMBER = 3


class Unfinished(ClientMethod):
    """Lacks fit."""


class Paced(LocalSGD):
    """Takes arguments of every simple type."""

    def __init__(
        self, pace: float, count: int = 1, name: str | None = None, flag: bool = True, mode: Literal["a", "b"] = "a"
    ) -> None:
        self.half = count // int(pace)


def nothing() -> Any:
    """Forgets to return what it builds."""


def crooked() -> Any:
    return {}["key"]
'''
HERE = "(its arguments: pace, count, name, flag, mode)"
OUTSIDE = "a module of your own must lie beside the app's pyproject.toml, or be installed on every node"
MESSAGES = [
    # the path
    ("my_methods.Paced", "", "an import path is written package.module:Name; did you mean 'my_methods:Paced'?"),
    ("./my_methods.py:Paced", "", "an import path is written package.module:Name; did you mean 'my_methods:Paced'?"),
    ("sub/methods.py:Paced", "", "an import path is written package.module:Name; did you mean 'sub.methods:Paced'?"),
    ("/home/me/methods.py:Paced", "", "an import path is written package.module:Name"),
    ("..methods:Paced", "", "an import path is written package.module:Name; did you mean 'methods:Paced'?"),
    ("my_methods:", "", "an import path is written package.module:Name"),
    ("my_methods:Paced:x", "", "an import path is written package.module:Name"),
    # the module
    ("my_method:Paced", "", "there is no module 'my_method'; did you mean 'my_methods'?"),
    ("MY_METHODS:Paced", "", "there is no module 'MY_METHODS'; did you mean 'my_methods'?"),
    ("elsewhere_9:Paced", "", f"there is no module 'elsewhere_9'; {OUTSIDE}"),
    (
        "client_app.methods.sdg:LocalSGD",
        "",
        "there is no module 'client_app.methods.sdg'; did you mean 'client_app.methods.sgd'?",
    ),
    (
        "needs_more:X",
        "",
        "cannot import needs_more, because it imports another module: "
        "No module named 'not_here' (needs_more.py, line 2)",
    ),
    ("raises:X", "", "cannot import raises: ZeroDivisionError: division by zero (raises.py, line 1)"),
    ("refuses:X", "", "cannot import refuses: ValueError: no"),
    ("misspelt:X", "", "cannot import misspelt: SyntaxError: expected ':' (misspelt.py, line 1)"),
    ("stops:X", "", "cannot import stops: SystemExit: 3 (stops.py, line 2)"),
    # the name in it
    (
        "my_methods:Pace",
        "",
        "my_methods has no 'Pace'; did you mean 'Paced'? choices: Paced, Unfinished, crooked, nothing",
    ),
    ("my_methods:NUMBER", "", "expected a class or a function, got 3"),
    ("pathlib:Path", "", "expected a subclass of client_app.methods.base.ClientMethod, got the class Path"),
    ("my_methods:Unfinished", "", "the class Unfinished lacks fit(model, context, round_config, state)"),
    ("my_methods:nothing", "", "expected a ClientMethod, got a NoneType"),
    # the arguments
    ("my_methods:Paced", "", f"missing argument pace {HERE}"),
    ("my_methods:Paced", "pase = 1.0", f"unknown argument 'pase'; did you mean 'pace'? {HERE}"),
    ("my_methods:Paced", "zzz = 1.0", f"unknown argument 'zzz' {HERE}"),
    ("my_methods:Paced", "pace = 'fast'", f"argument pace must be a number, not 'fast' {HERE}"),
    ("my_methods:Paced", "pace = true", f"argument pace must be a number, not True {HERE}"),
    ("my_methods:Paced", "pace = 1, count = 1.5", f"argument count must be a whole number, not 1.5 {HERE}"),
    ("my_methods:Paced", "pace = 1, name = 2", f"argument name must be a text in quotes, not 2 {HERE}"),
    (
        "my_methods:Paced",
        "pace = 1, flag = 'no'",
        f"argument flag must be true or false (without quotes), not 'no' {HERE}",
    ),
    ("my_methods:Paced", "pace = 1, mode = 'c'", f"argument mode must be 'a' or 'b', not 'c' {HERE}"),
    # what the constructor raises
    (
        "my_methods:Paced",
        "pace = 0.5",
        "ZeroDivisionError: integer division or modulo by zero (my_methods.py, line 20)",
    ),
    ("my_methods:crooked", "", "KeyError: 'key' (my_methods.py, line 28)"),
]


@dataclass
class Power:
    """Raise to a power."""

    power: float = 2.0
    width: int = 0

    def __post_init__(self) -> None:
        if self.power < 0:
            raise ValueError(f"power = {self.power}: must be at least 0")


class Scaled(Power):
    """A subclass that passes on what it does not know."""

    def __init__(self, scale: float = 1.0, **others: Any) -> None:
        super().__init__(**others)
        self.scale = scale


@pytest.fixture
def registry() -> Registry[Power]:
    registry: Registry[Power] = Registry("curve")
    registry.register("power", "Somebody, 1999")(Power)
    return registry


def test_built_ins_are_described_by_their_docstring(registry: Registry[Power]):
    (entry,) = registry.entries()
    assert (entry.name, entry.summary, entry.paper) == ("power", "Raise to a power", "Somebody, 1999")


def test_arguments_and_context_reach_the_factory(registry: Registry[Power]):
    assert registry.build("power", "power = 3.5", width=7, unrelated=1) == Power(3.5, 7)
    assert registry.build("tests.unit.tasks.test_plugins:Power", {"power": 1.0}) == Power(1.0)


def test_a_subclass_with_keywords_takes_the_arguments_of_its_base(registry: Registry[Power]):
    built = registry.build("tests.unit.tasks.test_plugins:Scaled", "scale = 3.0", width=7, unrelated=1)
    assert isinstance(built, Scaled)
    assert (built.scale, built.power, built.width) == (3.0, 2.0, 7)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("powr", "", r"unknown curve 'powr'; did you mean 'power'\? choices: power"),
        ("POWER", "", r"unknown curve 'POWER'; did you mean 'power'\? choices: power"),
        ("power", "POWER = 1", r"unknown argument 'POWER'; did you mean 'power'\?"),
        ("power", "powr = 1", r"curve 'power': .*'powr'.*\(its arguments: power\)"),
        ("power", "power = -1.0", "must be at least 0"),
        ("power", "power 3", "not inline TOML"),
        ("power", "width = 9", "width is set by the run itself"),
        ("no_such_module:Thing", "", "there is no module 'no_such_module'"),
        ("tests.unit.tasks.test_plugins:NUMBER", "", "expected a class or a function, got 3"),
        ("tests.unit.tasks.test_plugins:Powr", "", r"has no 'Powr'; did you mean 'Power'\?"),
    ],
)
def test_mistakes_are_explained(registry: Registry[Power], name: str, args: str, message: str):
    with pytest.raises(PluginError, match=message):
        registry.build(name, args, width=1)


def test_inline_toml():
    assert parse_args('power = 2.0, clip = true, name = "x", sizes = [1, 2]') == {
        "power": 2.0,
        "clip": True,
        "name": "x",
        "sizes": [1, 2],
    }
    assert parse_args("") == {}


@pytest.mark.parametrize(
    ("base", "changes", "merged"),
    [
        ("", "a = 1", "a = 1"),
        ("a = 1", "", ""),
        ("a = 1", "b = 2", "a = 1, b = 2"),
        ("a = 1, b = 2", "b=3,  a=4", "b=3,  a=4"),
        (r'a = "x\n\" é", b = [1, [2.5, "z"]]', "c = 1e-05", r'a = "x\n\" é", b = [1, [2.5, "z"]], c = 1e-05'),
        ('"a b" = true, g = [{ k = { l = [] } }]', "z = {}", '"a b" = true, g = [{ k = { l = [] } }], z = {}'),
    ],
)
def test_arguments_are_merged_by_their_names(base: str, changes: str, merged: str):
    assert merge_args(base, changes) == merged
    assert parse_args(merged) == (parse_args(base) | parse_args(changes) if changes else {})


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules of the user's own, which can be imported."""
    sources = {
        "my_methods": MINE,
        "needs_more": "\nimport not_here",
        "raises": "1 / 0",
        "refuses": "raise ValueError('no')",
        "misspelt": "class X\n",
        "stops": "import sys\nsys.exit(3)",
        "talks": "print('hello')\nfrom client_app.methods.sgd import LocalSGD",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in sources:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(("name", "args", "message"), MESSAGES)
def test_a_mistake_has_its_message(name: str, args: str, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        METHODS.build(name, args)
    assert str(caught.value) == f"client method {name!r}: {message}"


@pytest.mark.usefixtures("own_modules")
def test_arguments_that_fit_are_accepted() -> None:
    METHODS.build("my_methods:Paced", "pace = 2, count = 4, name = 'x', flag = false, mode = 'b'")
    METHODS.build("my_methods:Paced", {"pace": 1.5, "name": None})


@pytest.mark.usefixtures("own_modules")
def test_a_module_that_prints_at_import_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    METHODS.build("talks:LocalSGD")
    assert capsys.readouterr().out == "hello\n"


def test_a_module_in_the_working_directory_only_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left_behind.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    with pytest.raises(PluginError) as caught:
        METHODS.build("left_behind:X")
    assert str(caught.value) == (
        f"client method 'left_behind:X': the module 'left_behind' is in the working directory {tmp_path}, "
        f"but not in the app; {OUTSIDE}"
    )


@pytest.mark.parametrize(
    "registry", [RATE_DISTRIBUTIONS, LOSSES, METHODS, MODELS, NOISES, PARTITIONS, TASKS], ids=lambda r: r.kind
)
def test_every_kind_refuses_a_class_of_another_kind(registry: Registry[object]) -> None:
    with pytest.raises(PluginError, match=r"expected a subclass of .*, got the class Path"):
        registry.build("pathlib:Path")


def test_an_aggregator_is_a_class_or_a_function() -> None:
    with pytest.raises(PluginError, match=r"expected a subclass of Reweighting or CoordinateWise, or a function"):
        AGGREGATORS.build("pathlib:Path")


def test_the_signature_of_a_choice_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message builds its method and its loss anew."""
    METHODS.build("sgd"), LOSSES.build("gce", "q = 0.5")
    monkeypatch.delattr("inspect.signature")
    METHODS.build("sgd"), LOSSES.build("gce", "q = 0.6")
