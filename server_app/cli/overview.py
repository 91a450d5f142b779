"""Overview, ``winnow`` without a command: what one can do next, by task; and the versions, ``winnow --version``."""

import argparse
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

TASKS = (
    (
        "See it work",
        ("winnow run demo", "20 clients, wrong labels, trained in two ways"),
        ("winnow preview demo", "what these clients hold; nothing is trained"),
        ("winnow sweep digits-quick", "compare three methods, in about two minutes"),
    ),
    (
        "Choose",
        ("winnow list", "all that there is"),
        ("winnow list method", "the methods, with their arguments"),
        ("winnow list loss anl-ce", "one choice: arguments, presets, paper, example"),
        ("winnow run demo loss.name=gce", "a recipe, and settings that change it"),
    ),
    (
        "Look at what came out",
        ("winnow runs", "runs and sweeps in runs/"),
        ("winnow compare RUN RUN", "runs side by side"),
        ("winnow report RUN", "write the page of a run again"),
    ),
    (
        "Train across real sites",
        ("winnow doctor", "is this machine ready?"),
        ("winnow keys --help", "keys of the sites"),
        ("winnow federation --help", "start, submit, look after"),
    ),
)
HEAD = "Winnow: federated learning that survives bad labels."
END = "All commands: winnow --help    Options of one: winnow run --help"
PACKAGES = ("flwr", "torch")


def overview() -> str:
    """Return what one can do next, at most 80 columns wide."""
    width = max(len(command) for _, *lines in TASKS for command, _ in lines)
    blocks = [
        "\n".join([title, *(f"  {command:<{width}}  {about}" for command, about in lines)]) for title, *lines in TASKS
    ]
    return "\n\n".join([HEAD, *blocks, END])


def show_overview(args: argparse.Namespace) -> int:
    """Print the overview."""
    print(overview())
    return 0


def versions() -> str:
    """Return the versions of Winnow, of what it stands on, and of Python, on a line each."""
    lines = [f"{name:<7} {_version(name)}" for name in ("winnow", *PACKAGES)]
    return "\n".join([*lines, f"{'python':<7} {platform.python_version()}"])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "is not installed"


class ShowVersions(argparse.Action):
    """The option ``--version``; the versions are looked up only when it is given."""

    def __init__(self, option_strings: Sequence[str], dest: str, **given: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the versions of Winnow, flwr, torch and Python")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print them and end."""
        print(versions())
        parser.exit()
