"""List command, ``winnow list``: all that can be chosen, one kind with its arguments, or one choice in full.

Everything is read from the source, see :mod:`server_app.cli.catalog`, and from the files of recipes and sweeps.
"""

import argparse
import json
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from server_app.cli.catalog import Choice, built_ins
from server_app.cli.config import CommandError
from server_app.cli.explanations import argument_line, explained, facts
from server_app.cli.recipes import recipe_choices, sweep_choices
from tasks.plugins import did_you_mean

EXAMPLE = "example:  winnow list method fedcorr"
NARROW = 80
"""Columns of a text that goes to no terminal, and the most that a line of prose gets."""
INDENT = "  "
NEXT = """\
winnow list KIND        each choice of a kind, with its arguments
winnow list KIND NAME   what it is, its arguments, paper and an example
Your own code is chosen by its import path, package.module:Name."""
NEEDED = "An argument written with = ? has no default and must be given."


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "List what can be chosen: all kinds, one kind with arguments, or one choice in full."
    parser = commands.add_parser("list", help="list and explain what can be chosen", description=text, epilog=EXAMPLE)
    parser.add_argument("kind", nargs="?", metavar="KIND", type=_known, help="such as loss, aggregator or recipe")
    parser.add_argument("name", nargs="?", metavar="NAME", help="one choice of this kind, such as gce")
    parser.add_argument("--json", action="store_true", help="for programs: the same as JSON")
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Print what was asked for."""
    known = kinds()
    width = min(shutil.get_terminal_size((NARROW, 24)).columns, 100)
    chosen = known if args.kind is None else {args.kind: known[args.kind]}
    if args.name is not None:
        chosen = {args.kind: [_named(args.kind, args.name, known[args.kind])]}
    if args.json:
        print(json.dumps({kind: [facts(kind, each) for each in choices] for kind, choices in chosen.items()}, indent=1))
    elif args.kind is None:
        print(overview(known, width))
    elif args.name is None:
        print(section(args.kind, chosen[args.kind], width))
    else:
        print(explained(args.kind, chosen[args.kind][0], width))
    return 0


def kinds() -> dict[str, list[Choice]]:
    """Return every recipe, sweep and built-in choice, by kind."""
    return {"recipe": recipe_choices(), "sweep": sweep_choices(), **built_ins()}


def overview(known: Mapping[str, list[Choice]], width: int) -> str:
    """Return the names of all choices by kind."""
    parts = [f"{kind}:\n{_filled(', '.join(each.name for each in choices), width)}" for kind, choices in known.items()]
    return "\n".join([*parts, "", NEXT])


def _filled(text: str, width: int, indent: str = INDENT) -> str:
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def section(kind: str, choices: list[Choice], width: int) -> str:
    """Return each choice of a kind with a line about it, its paper and its arguments with their defaults."""
    lines, has_needed = [f"{kind}:"], False
    for choice in choices:
        told = argument_line(choice)
        has_needed |= " = ?" in told
        lines += [f"{INDENT}{choice.name}", _filled(choice.description, width, INDENT * 3)]
        lines += [_filled(told, width, INDENT * 3)] if told else []
    more = f"winnow list {kind} NAME explains one."
    return "\n".join([*lines, "", *([NEEDED] if has_needed else []), more])


def _known(kind: str) -> str:
    """Return ``kind`` if there is such a kind."""
    known = kinds()
    if kind not in known:
        raise argparse.ArgumentTypeError(f"unknown kind {kind!r}{did_you_mean(kind, known)}")
    return kind


def _named(kind: str, name: str, choices: list[Choice]) -> Choice:
    """Return the choice of this name.

    Raises
    ------
    CommandError
        If there is none.
    """
    found: dict[str, Any] = {choice.name: choice for choice in choices}
    if name not in found:
        raise CommandError(f"no {kind} is called {name!r}{did_you_mean(name, found)}")
    choice: Choice = found[name]
    return choice
