"""``winnow list``: every built-in choice, with one line about it and its paper."""

import argparse
import importlib
import shutil
import textwrap
from collections.abc import Iterable

from tasks.plugin import Entry, Registry, did_you_mean

# The packages that hold built-in choices: each registry in one of them is a kind, in this order.
PACKAGES = (
    "tasks.registry",
    "tasks.models",
    "client_app.losses",
    "tasks.noise",
    "tasks.partition",
    "client_app.attacks",
    "client_app.methods",
    "strategies.aggregators",
    "strategies.server_steps",
    "server_app.strategy",
    "strategies.detection",
    "server_app.callbacks",
)
EXAMPLE = "example:  winnow list loss"

Choices = list[tuple[str, str]]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "List the built-in choices. Anything else can be named by its import path, package.module:Name."
    parser = commands.add_parser("list", help="list the built-in choices", description=text, epilog=EXAMPLE)
    parser.add_argument("kind", nargs="?", type=_known, help="only this kind, such as loss or aggregator")
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Print the choices."""
    width = shutil.get_terminal_size().columns
    known = kinds()
    chosen = [args.kind] if args.kind else list(known)
    print("\n\n".join(section(kind, known[kind], width) for kind in chosen))
    return 0


def kinds() -> dict[str, Choices]:
    """Return (name, description) of every built-in choice, by kind; presets come after the losses they belong to."""
    found: dict[str, Choices] = {}
    for registry in registries():
        found[registry.listed] = [(entry.name, _about(entry)) for entry in registry.entries()]
        if registry.listed == "loss":
            found["preset"] = _presets()
    return found


def registries() -> list[Registry[object]]:
    """Return the registry of every kind, once each; imports all of them."""
    values = [value for package in PACKAGES for value in vars(importlib.import_module(package)).values()]
    return list({id(value): value for value in values if isinstance(value, Registry)}.values())


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


def _known(kind: str) -> str:
    """Return ``kind`` if there is such a kind; looked up only now, because it imports everything."""
    known = kinds()
    if kind not in known:
        raise argparse.ArgumentTypeError(f"unknown kind {kind!r}{did_you_mean(kind, known)}")
    return kind


def _about(entry: Entry[object]) -> str:
    return f"{entry.summary} ({entry.paper})" if entry.paper else entry.summary


def _presets() -> Choices:
    from client_app.losses import PRESETS  # imports torch, which the other commands start faster without

    return [(name, f"parameters of {len(losses)} losses") for name, losses in sorted(PRESETS.items())]
