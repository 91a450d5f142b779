"""Explanations of choices for ``winnow list``: what one is, its arguments, presets, paper, and a command to paste.

All of it comes from the docstring and the signature, from the tables of presets, and from the files of recipes.
"""

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from server_app.cli.catalog import Choice, presets
from server_app.cli.config import RECIPES, SWEEPS
from server_app.cli.docstrings import Docstring, docstring, wrapped
from server_app.cli.names import KINDS
from server_app.cli.recipes import read_recipe
from server_app.cli.signatures import Argument, arguments
from tasks.arguments import assignment
from tasks.config import OWNERS, Flat

SETTINGS = {kind: key for key, kind in KINDS.items()}
"""By kind the setting that names the choice."""
ARGUMENTS = {owner: key for key, owner in OWNERS.items()}
"""By the setting that names a choice the one that holds its arguments."""
INLINE = {"pre-aggregator": "strategy.pre-aggregators", "callback": "run.callbacks"}
"""By kind the setting that names several choices with their arguments."""
SAMPLES = {"a whole number": 1, "a number": 0.5, "a text in quotes": "...", "a list": ["one", "two"]}
"""By type what an argument without a default gets in an example."""
MOST = 4
"""Recipes that are named."""


def argument_line(choice: Choice) -> str:
    """Return the arguments of a built-in with their defaults, or the options of a recipe, on one line."""
    if choice.source is not None:
        return ", ".join(argument.written for argument in arguments(choice.source))
    return "; ".join(f"{axis}: {', '.join(options)}" for axis, options in choice.options.items())


def facts(kind: str, choice: Choice) -> dict[str, Any]:
    """Return what is known of a choice, as plain values."""
    found: dict[str, Any] = {"name": choice.name, "summary": choice.summary}
    if choice.source is not None:
        text = docstring(choice.source.node)
        labels = {label.lower(): told for label, told in text.labelled.items() if label != "Example"}
        found |= {"paper": choice.paper, "links": list(choice.links), **labels}
        found["arguments"] = [_argument_facts(argument) for argument in arguments(choice.source)]
    found |= {"options": {axis: list(names) for axis, names in choice.options.items()}} if choice.options else {}
    if kind == "loss":
        found["presets"] = {preset: dict(values) for preset, values in _presets_of(choice.name).items()}
    return {**found, "example": example(kind, choice)}


def _argument_facts(argument: Argument) -> dict[str, Any]:
    default = {} if argument.is_needed else {"default": argument.default}
    return {"name": argument.name, "type": argument.type, **default, "meaning": argument.meaning}


def explained(kind: str, choice: Choice, width: int) -> str:
    """Return everything about a choice as text, at most ``width`` columns wide where no word is longer."""
    title = wrapped(f"{kind} {choice.name}: {choice.summary}.", width)
    if choice.source is not None:
        parts = _component(kind, choice, width)
    elif kind == "preset":
        values = presets()[choice.name].items()
        parts = iter([_lines("parameters", [f"{loss}: {_pairs(pairs)}" for loss, pairs in values], width)])
    else:
        parts = _file((RECIPES if kind == "recipe" else SWEEPS) / f"{choice.name}.toml", choice, width)
    lines = [title, *parts, f"example\n{_command(example(kind, choice), width)}"]
    return "\n\n".join(line for line in lines if line)


def _component(kind: str, choice: Choice, width: int) -> Iterator[str]:
    assert choice.source is not None
    text = docstring(choice.source.node)
    for paragraph in text.paragraphs:
        yield wrapped(paragraph, width)
    yield _arguments(kind, arguments(choice.source), width)
    for label in ("Cost", "Breakdown"):
        if label in text.labelled:
            heading = "cost of a round" if label == "Cost" else label.lower()
            yield _lines(heading, [text.labelled[label]], width, "  ")
    if kind == "loss" and (known := _presets_of(choice.name)):
        yield _lines("loss.preset", [f"{preset}: {_pairs(values)}" for preset, values in known.items()], width)
    yield _lines("paper", [choice.paper or "no paper", *choice.links], width)
    if used := _recipes_with(kind, choice.name):
        rest = f" and {len(used) - MOST} more" if len(used) > MOST else ""
        yield _lines("recipes", [f"{', '.join(used[:MOST])}{rest}"], width, "  ")


def _command(text: str, width: int) -> str:
    """Return a command, its settings on lines of their own where it is wider."""
    if len(text) + 2 <= width:
        return f"  {text}"
    start, *words = re.split(r" (?=[a-z][a-z-]*\.[a-z-]+=)", text)
    return " \\\n".join([f"  {start}", *(f"      {word}" for word in words)])


def _lines(heading: str, lines: list[str], width: int, hanging: str = "    ") -> str:
    return "\n".join([heading, *(_filled(line, width, "  ", hanging) for line in lines)])


def _filled(text: str, width: int, first: str, rest: str) -> str:
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )


def _arguments(kind: str, found: list[Argument], width: int) -> str:
    """Return each argument with its default, type and meaning."""
    key = _arguments_key(kind)
    lines = [f"arguments ({key})" if key and found else "arguments"]
    for argument in found:
        state = ", must be given" if argument.is_needed else ", left out by default" if argument.default is None else ""
        written = argument.name if argument.is_needed else argument.written
        lines.append(_filled(f"{written}    {argument.type}{state}", width, "  ", "      "))
        lines.append(_filled(argument.meaning, width, "      ", "      "))
    return "\n".join(lines if found else [*lines, "  none"])


def _arguments_key(kind: str) -> str:
    """Return the setting that holds the arguments of a kind."""
    return (
        INLINE.get(kind)
        or {"detector": "detector_args of strategy.args"}.get(kind)
        or ARGUMENTS.get(SETTINGS.get(kind, ""), "")
    )


def _presets_of(loss: str) -> dict[str, Mapping[str, Any]]:
    return {preset: losses[loss] for preset, losses in presets().items() if loss in losses}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(assignment(*pair) for pair in values.items()) or "no parameters"


def _recipes_with(kind: str, name: str) -> list[str]:
    """Return the recipes that choose a built-in, ``recipe@option`` where one of their options does."""
    key, found = SETTINGS.get(kind), list[str]()
    for file in sorted(RECIPES.glob("*.toml")) if key else ():
        recipe = read_recipe(file.stem, RECIPES)
        if any(layer.get(str(key)) == name for layer in recipe.own):
            found.append(file.stem)
        options = [(option, changes) for each in recipe.axes.values() for option, changes in each.items()]
        found += [f"{file.stem}@{option}" for option, changes in options if changes.get(str(key)) == name]
    return found


def _file(file: Path, choice: Choice, width: int) -> Iterator[str]:
    """Yield the comment that a recipe or sweep begins with, where it lies, what it sets and what it offers."""
    lines = file.read_text(encoding="utf-8").split("\n")
    comment = lines[: next(place for place, line in enumerate(lines) if not line.startswith("#"))]
    told = " ".join(line.removeprefix("#").strip() for line in comment).partition(". ")[2]
    yield wrapped(told, width) if told else ""
    if file.parent == SWEEPS:
        from server_app.sweep.file import read_sweep

        axes = {axis: tuple(options) for axis, options in read_sweep(file).axes.items()}
        yield _lines("compares", [f"{axis}: {', '.join(names)}" for axis, names in axes.items()], width)
    else:
        yield _lines("settings", list(_settings(read_recipe(choice.name, RECIPES).own)), width)
        offered = [f"{axis}: {', '.join(names)}" for axis, names in choice.options.items()]
        yield _lines("options, one of each axis behind @; the first one holds", offered, width) if offered else ""
    yield _lines("file", [str(file)], width)


def _settings(layers: tuple[Flat, ...]) -> Iterator[str]:
    for key, setting in {key: value for layer in layers for key, value in layer.items()}.items():
        text = " ".join(str(setting).split()) if isinstance(setting, str) else str(setting).lower()
        yield f"{key} = {text}"


def example(kind: str, choice: Choice) -> str:
    """Return a command that uses a choice, to be pasted into a shell and changed."""
    if kind == "recipe":
        first = ",".join(names[0] for names in choice.options.values())
        return f"winnow run {choice.name}{'@' if first else ''}{first}"
    if kind == "sweep":
        return f"winnow sweep {choice.name}"
    if kind == "preset":
        return f"winnow run loss.name={next(iter(presets()[choice.name]))} loss.preset={choice.name}"
    assert choice.source is not None
    text = docstring(choice.source.node)
    return text.labelled.get("Example") or f"winnow run {' '.join(_words(kind, choice, text))}"


def _words(kind: str, choice: Choice, text: Docstring) -> Iterator[str]:
    """Yield the settings of an example: the choice with its needed arguments, or else the first with its default."""
    assert choice.source is not None
    found = arguments(choice.source)
    shown = [argument for argument in found if argument.is_needed] or found[:1]
    given = ", ".join(assignment(each.name, _sample(each)) for each in shown if _sample(each) is not None)
    if kind in INLINE:
        yield f"{INLINE[kind]}={shlex.quote(f'{choice.name} = {{ {given} }}' if given else f'{choice.name} = {{}}')}"
    elif kind == "detector":
        yield "strategy.name=noise-partition"
        nested = f', detector_args = "{given}"' if given else ""
        yield f"strategy.args='detector = \"{choice.name}\"{nested}'"
    else:
        yield f"{SETTINGS[kind]}={shlex.quote(choice.name)}"
        if given:
            yield f"{_arguments_key(kind)}={shlex.quote(given)}"


def _sample(argument: Argument) -> Any:
    if argument.is_needed or argument.default is None:
        return SAMPLES.get(argument.type)
    return argument.default
