"""``winnow list KIND NAME`` explains every built-in from its class: arguments, paper, cost, an example that works."""

import argparse
import ast
import importlib
import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client_app.losses import PRESETS
from server_app.cli import build_parser, main
from server_app.cli.catalog import PACKAGES, Choice
from server_app.cli.config import make_plan
from server_app.cli.docstrings import docstring
from server_app.cli.explanations import INLINE, SETTINGS, example
from server_app.cli.listing import kinds
from server_app.cli.overview import overview
from server_app.cli.run import check_parts
from server_app.cli.signatures import arguments
from server_app.cli.source_code import sources
from tasks.arguments import accepted_names, bind, parse_args
from tasks.config import OWNERS
from tasks.plugins import Registry
from tests.registries import registries

KNOWN = kinds()
REGISTRIES = {registry.listed: registry for registry in registries()}
BUILT_IN = [(kind, choice) for kind in REGISTRIES for choice in KNOWN[kind]]
ALL = [(kind, choice) for kind, choices in KNOWN.items() for choice in choices]
NO_LINK = {"fsanl"}  # its paper is not public


def named(pairs: list[tuple[str, Choice]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("kind", "choice"), pairs, ids=[f"{kind}-{each.name}" for kind, each in pairs])


def factory_of(kind: str, choice: Choice) -> Callable[..., object]:
    return REGISTRIES[kind].find(choice.name)


def defaults_of(factory: Callable[..., object]) -> dict[str, Any]:
    """The defaults of a factory and, where it passes names on, of the constructors of its bases."""
    bases = reversed(factory.__mro__[:-1]) if inspect.isclass(factory) else [factory]
    found: dict[str, Any] = {}
    for base in bases:
        found |= {name: each.default for name, each in inspect.signature(base).parameters.items()}
    return found


@named(BUILT_IN)
def test_arguments_read_from_the_source_are_those_of_the_signature(kind: str, choice: Choice) -> None:
    factory, registry = factory_of(kind, choice), REGISTRIES[kind]
    assert choice.source is not None
    found = arguments(choice.source)
    defaults = defaults_of(factory)
    wanted = [name for name in accepted_names(factory) if name not in registry.run_sets]
    hidden = {name for name in wanted if name not in [each.name for each in found]}
    assert all("Callable" in str(annotation_of(factory, name)) for name in hidden), hidden
    assert {each.name for each in found} == set(wanted) - hidden
    for each in found:
        default = defaults[each.name]
        if default is inspect.Parameter.empty:
            assert each.is_needed
        elif repr(default) != "<factory>":
            assert each.default == (list(default) if isinstance(default, tuple) else default)


def annotation_of(factory: Callable[..., object], name: str) -> object:
    bases = factory.__mro__[:-1] if inspect.isclass(factory) else [factory]
    return next(
        inspect.signature(each).parameters[name].annotation
        for each in bases
        if name in inspect.signature(each).parameters
    )


def given_by_the_app(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Yield registry and name of each argument that a function of ours gives a registry as context."""
    tables: dict[str, list[str]] = {}
    for node in ast.walk(function):
        match node:
            case ast.Assign([ast.Name(table)], ast.Dict(keys)) | ast.AnnAssign(ast.Name(table), _, ast.Dict(keys)):
                tables[table] = [str(key.value) for key in keys if isinstance(key, ast.Constant)]
    for node in ast.walk(function):
        match node:
            case ast.Call(ast.Attribute(ast.Name(registry), "build"), _, keywords) if registry.isupper():
                for each in keywords:
                    names = [each.arg] if each.arg else tables[ast.unparse(each.value)]
                    yield from ((registry, name) for name in names)


def test_registries_declare_what_the_app_sets() -> None:
    variables = {name: each for package in PACKAGES for name, each in vars(importlib.import_module(package)).items()}
    declared = {name: set(each.run_sets) for name, each in variables.items() if isinstance(each, Registry)}
    found: dict[str, set[str]] = {}
    for _, tree in sources(".build("):
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            for registry, name in given_by_the_app(function):
                found.setdefault(registry, set()).add(name)
    assert found == {name: names for name, names in declared.items() if names}


@named(BUILT_IN)
def test_every_built_in_is_explained(kind: str, choice: Choice) -> None:
    assert choice.source is not None
    assert len(choice.summary) > 10
    assert [each.name for each in arguments(choice.source) if len(each.meaning) < 5] == []
    assert [each.name for each in arguments(choice.source) if not each.type] == []
    assert choice.links or not choice.paper or choice.name in NO_LINK, "its paper has no link"
    assert all(re.fullmatch(r"https://\S+", link) for link in choice.links)
    text = docstring(choice.source.node)
    if kind == "method":
        assert text.labelled["Cost"]
    if kind == "aggregator":
        assert text.labelled["Breakdown"]


@named(BUILT_IN)
def test_the_example_s_arguments_fit(kind: str, choice: Choice) -> None:
    command = shlex.split(example(kind, choice))
    assert command[:2] == ["winnow", "run"]
    given = dict(word.split("=", 1) for word in command[2:] if "=" in word)
    if kind in INLINE:
        [(name, args)] = parse_args(given[INLINE[kind]]).items()
    elif kind == "detector":
        told = parse_args(given["strategy.args"])
        name, args = told["detector"], parse_args(told.get("detector_args", ""))
    elif SETTINGS[kind] in given:
        key = {owner: key for key, owner in OWNERS.items()}[SETTINGS[kind]]
        name, args = given[SETTINGS[kind]], parse_args(given.get(key, ""))
    else:
        assert len(command) == 3  # a recipe that comes with the method
        return
    assert name == choice.name
    bind(factory_of(kind, choice), args, dict.fromkeys(REGISTRIES[kind].run_sets))


@named([pair for pair in BUILT_IN if pair[0] in ("method", "strategy", "detector", "pre-aggregator")])
def test_the_example_is_a_run_that_could_start(kind: str, choice: Choice) -> None:
    words = shlex.split(example(kind, choice))[2:]
    for settings in check_parts(make_plan(words, None, Path.cwd()), recorded_here=False).values():
        chosen = {"method": settings.method.name, "strategy": settings.strategy.name}
        assert chosen.get(kind, choice.name) == choice.name


def too_wide(text: str) -> list[str]:
    """The lines of more than 80 columns, but for those that are one word: an address, a path, a quoted argument."""
    lines = [line for line in text.splitlines() if len(line) > 80]
    return [line for line in lines if len(shlex.split(line.rstrip("\\")) if "'" in line else line.split()) > 1]


@pytest.mark.parametrize("argv", [[], *([kind] for kind in KNOWN)], ids=str)
def test_lists_fit_80_columns(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *argv]) == 0
    assert too_wide(capsys.readouterr().out) == []


@named(ALL)
def test_explanations_name_their_choice_and_fit_80_columns(
    kind: str, choice: Choice, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", kind, choice.name]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{kind} {choice.name}:")
    assert text.rstrip().split("\n\n")[-1].startswith("example\n  winnow ")
    assert too_wide(text) == []


def test_a_loss_is_explained_with_the_values_published_for_each_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "loss", "anl-ce"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "cifar-100: alpha = 10.0, beta = 1.0, delta = 5e-07" in lines
    assert "alpha = 5.0    a number" in lines
    told = [preset for preset in PRESETS if any(line.startswith(f"{preset}: ") for line in lines)]
    assert told == [preset for preset, losses in PRESETS.items() if "anl-ce" in losses]


def test_an_unknown_name_is_refused_with_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "method", "fedcor"]) == 2
    assert "no method is called 'fedcor'; did you mean 'fedcorr'?" in capsys.readouterr().err


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "method", "fednoro", "--json"]) == 0
    [[fednoro]] = json.loads(capsys.readouterr().out).values()
    assert fednoro["links"] == ["https://arxiv.org/abs/2305.05230"]
    weight = {"name": "weight", "type": "a number", "default": 0.8}
    assert {key: fednoro["arguments"][0][key] for key in weight} == weight
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {kind: [each["name"] for each in choices] for kind, choices in found.items()} == {
        kind: [each.name for each in choices] for kind, choices in KNOWN.items()
    }


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


def test_all_helps_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    texts = [parser.format_help() for parser in parsers(build_parser())]
    assert len(texts) > 15
    assert [line for text in texts for line in too_wide(text)] == []


def test_without_a_command_one_is_told_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert shown == f"{overview()}\n"
    assert too_wide(shown) == []
    commands = re.findall(r"^  winnow (\w+)", shown, re.MULTILINE)
    known = next(each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction)).choices
    assert set(commands) <= set(known)


def test_versions_are_those_that_are_installed(capsys: pytest.CaptureFixture[str]) -> None:
    import flwr
    import torch

    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert shown.keys() == {"winnow", "flwr", "torch", "python"}
    assert shown["flwr"] == flwr.__version__
    assert torch.__version__.startswith(shown["torch"])
