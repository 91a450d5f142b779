from dataclasses import dataclass
from typing import Any

import pytest

from tasks.plugins import PluginError, Registry, parse_args

NUMBER = 3


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
