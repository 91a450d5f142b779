"""``winnow list``: every built-in choice, with one line about it and its paper."""

import argparse
import importlib
import shutil
import textwrap
from collections.abc import Iterable

from tasks.plugin import Entry, Registry

# Where the choices of each kind are: a registry, or for presets a table of tables.
KINDS: dict[str, str] = {
    "task": "tasks.registry:TASKS",
    "model": "tasks.models:MODELS",
    "loss": "client_app.losses:LOSSES",
    "preset": "client_app.losses:PRESETS",
    "noise": "tasks.noise:NOISES",
    "noise-law": "tasks.noise:LAWS",
    "partition": "tasks.partition:PARTITIONS",
    "attack": "client_app.attacks:ATTACKS",
    "method": "client_app.methods:METHODS",
    "aggregator": "strategies.aggregators:AGGREGATORS",
    "pre-step": "strategies.aggregators:PRE_STEPS",
    "server-step": "strategies.server_steps:SERVER_STEPS",
    "strategy": "server_app.strategy:STRATEGIES",
    "detector": "strategies.detection:DETECTORS",
}
EXAMPLE = "example:  winnow list loss"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "List the built-in choices. Anything else can be named by its import path, package.module:Name."
    parser = commands.add_parser("list", help="list the built-in choices", description=text, epilog=EXAMPLE)
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only this kind")
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Print the choices."""
    width = shutil.get_terminal_size().columns
    kinds = [args.kind] if args.kind else list(KINDS)
    print("\n\n".join(section(kind, choices(kind), width) for kind in kinds))
    return 0


def choices(kind: str) -> list[tuple[str, str]]:
    """Return (name, description) of every built-in choice of a kind."""
    module, _, attribute = KINDS[kind].partition(":")
    table = getattr(importlib.import_module(module), attribute)
    if isinstance(table, Registry):
        return [(entry.name, _about(entry)) for entry in table.entries()]
    return [(name, f"parameters of {len(losses)} losses") for name, losses in sorted(table.items())]


def section(kind: str, entries: Iterable[tuple[str, str]], width: int) -> str:
    """Return the choices of a kind as aligned text, at most ``width`` columns wide where that is possible."""
    known = list(entries)
    margin = max(len(name) for name, _ in known) + 4
    lines = [
        textwrap.fill(
            text, max(width, margin + 40), initial_indent=f"  {name:<{margin - 2}}", subsequent_indent=" " * margin
        )
        for name, text in known
    ]
    return "\n".join([f"{kind}:", *lines])


def _about(entry: Entry[object]) -> str:
    return f"{entry.summary} ({entry.paper})" if entry.paper else entry.summary
