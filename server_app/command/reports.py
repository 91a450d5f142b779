"""``winnow report`` and ``winnow compare``: what runs have recorded."""

import argparse

from server_app.command.configuration import CommandError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare both command lines."""
    for name, action, about, example in (
        ("report", report, "Write report.html of each run directory again.", "winnow report runs/20260131-101500"),
        ("compare", compare, "Show runs side by side.", "winnow compare runs/20260131-101500-*"),
    ):
        parser = commands.add_parser(
            name, help=about.lower().rstrip("."), description=about, epilog=f"example:  {example}"
        )
        parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", help="folder of a run")
        parser.set_defaults(action=action)


def report(args: argparse.Namespace) -> int:
    """Write the reports and print their paths."""
    from server_app.report import ReportError, write_report

    try:
        for run_dir in args.run_dirs:
            print(write_report(run_dir))
    except ReportError as error:
        raise CommandError(str(error)) from error
    return 0


def compare(args: argparse.Namespace) -> int:
    """Print the comparison."""
    from server_app.report import ReportError, comparison_table

    try:
        print(comparison_table(args.run_dirs))
    except ReportError as error:
        raise CommandError(str(error)) from error
    return 0
