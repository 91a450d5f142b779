"""Docstrings in the form of NumPy's guide, read for ``winnow list``: summary, text, labelled paragraphs, parameters.

A paragraph is labelled by its first word: ``Cost:`` (of a round, beyond plain training), ``Breakdown:`` (which share of
hostile clients is withstood) and ``Example:`` (a command). Parameters stand under their heading, a name or several on a
line, and what they mean indented below; nothing else is looked at.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from server_app.cli.source_code import Definition

LABELS = ("Cost", "Breakdown", "Example")
ITEM = re.compile(r"(- |\d+\. )")


@dataclass(frozen=True)
class Docstring:
    """A docstring: its first line, the paragraphs after it, those with a label by label, and parameters by name."""

    summary: str = ""
    paragraphs: tuple[str, ...] = ()
    labelled: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)


def docstring(node: Definition) -> Docstring:
    """Read the docstring of a class or function."""
    return read(ast.get_docstring(node, clean=False) or "")


def read(text: str) -> Docstring:
    """Read a docstring.

    >>> read('''Add.
    ...
    ... Cost: ``n`` steps.
    ...
    ... Parameters
    ... ----------
    ... a, b
    ...     What is added.
    ... ''')
    Docstring(summary='Add', paragraphs=(), labelled={'Cost': 'n steps.'}, parameters={'a': 'What is added.', 'b': 'What is added.'})
    """  # noqa: E501 - the value is one line
    sections = dict(_sections(inspect.cleandoc(text).split("\n")))
    summary, *rest = sections.get("", [""])
    paragraphs, labelled = list[str](), dict[str, str]()
    for paragraph in "\n".join(rest).strip("\n").split("\n\n"):
        label, colon, told = paragraph.partition(": ")
        if colon and label in LABELS:
            labelled[label] = plain(" ".join(told.split()))
        elif paragraph.strip():
            paragraphs.append(plain(paragraph.strip("\n")))
    parameters = dict(_parameters(sections.get("Parameters", [])))
    return Docstring(plain(summary.rstrip(".")), tuple(paragraphs), labelled, parameters)


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines under each heading; those before the first one have the heading ""."""
    heading, begun = "", 0
    for place in range(1, len(lines)):
        if lines[place].strip() and not lines[place].strip("-") and lines[place - 1].strip():
            yield heading, lines[begun : place - 1]
            heading, begun = lines[place - 1].strip(), place + 1
    yield heading, lines[begun:]


def _parameters(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each parameter with what it means."""
    names, told = list[str](), list[str]()
    for line in [*lines, "."]:
        if line[:1].isspace() or not line:
            told.append(line.strip())
            continue
        for name in names:
            yield name, plain(" ".join(filter(None, told)))
        names, told = [name.strip(" *") for name in line.partition(":")[0].split(",")], []


def plain(text: str) -> str:
    """Return text without the marks of reStructuredText.

    >>> plain("``a`` of :class:`~tasks.base.Task`, `b`")
    'a of Task, b'
    """
    text = re.sub(r":[a-z]+:`(?:~[\w.]*\.)?([^`]+)`", r"\1", text)
    return re.sub(r"`+([^`]*)`+", r"\1", text)


def wrapped(paragraph: str, width: int, indent: str = "") -> str:
    """Return a paragraph or a list at most ``width`` columns wide; each item of a list begins a line."""
    items = list[list[str]]()
    for line in paragraph.split("\n"):
        if not items or ITEM.match(line.strip()):
            items.append([])
        items[-1].append(line.strip())
    return "\n".join(_item(" ".join(item), width, indent) for item in items)


def _item(text: str, width: int, indent: str) -> str:
    mark = ITEM.match(text)
    hanging = " " * len(mark[0]) if mark else ""
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent + hanging, break_on_hyphens=False)
