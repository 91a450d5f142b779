"""Command ``winnow``: a careful way to run the app, and a look at what is there and what came out."""

import argparse
import atexit
import os
import signal
import sys
from collections.abc import Sequence

import server_app.cli.own_packages  # noqa: F401  before anything else of ours
from server_app.cli import audit, doctor, federation, keys, listing, models, results, run, runs, show, site_pack, sweep
from server_app.cli.config import CommandError
from server_app.cli.garbage import end_without_search
from server_app.cli.overview import ShowVersions, show_overview
from server_app.cli.superlink import SuperLinkError
from server_app.output import OutputLostError, shown_output
from tasks.config import ConfigError
from tasks.plugins import PluginError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for what the user can correct, else what the command says.

    When nobody takes its output any more, that is the exit code of other programs, see :class:`OutputLostError`.
    """
    if argv is None:  # the process is the command: what is imported need not be searched for garbage at its end
        atexit.register(end_without_search)
    try:
        with shown_output():
            return _command(argv)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OutputLostError as lost:
        return lost.exit_code


def _command(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if "words" in args:  # options may stand between words
        args.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        command = f"winnow {args.command}" if args.command else "winnow"
        parser.error(f"unrecognized arguments: {' '.join(rest)} (see {command} --help)")
    try:
        os.getcwd()
    except OSError as error:
        print(f"winnow: the working directory is gone ({error.strerror}): cd to another", file=sys.stderr)
        return 2
    try:
        return int(args.action(args))
    except (CommandError, ConfigError, PluginError, SuperLinkError) as error:
        print(f"winnow {args.command}: {error}", file=sys.stderr)
        return 1 if isinstance(error, SuperLinkError) else 2


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="winnow", description="Federated learning that survives bad labels.")
    parser.add_argument("--version", action=ShowVersions)
    parser.set_defaults(action=show_overview)
    commands = parser.add_subparsers(dest="command", metavar="command")
    for module in (run, sweep, results, listing, show, runs, models, audit, doctor, federation, keys, site_pack):
        module.add_parser(commands)
    return parser
