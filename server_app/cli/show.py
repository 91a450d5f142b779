"""Commands that only show: ``winnow preview`` and ``report``; nothing is trained or started.

What is slow to import (torch, matplotlib) is imported when a command needs it.
"""

import argparse
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from server_app.cli.config import APP, CommandError, make_plan, path_argument
from server_app.cli.run import check_parts
from tasks.config import without_effect
from tasks.files import WriteError
from tasks.settings import Settings

REPORT_EXAMPLE = "example:  winnow report runs/20260131-101500"
PREVIEW_EXAMPLE = "example:  winnow preview demo partition.args='alpha = 0.1' noise.rates-args='max = 0.4'"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare both command lines."""
    _add_preview(commands)
    _add_report(commands)


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Write the page of each run or sweep again: report.html of a run, index.html and the pictures of a sweep."
    parser = commands.add_parser(
        "report", help="write the page of runs and sweeps again", description=text, epilog=REPORT_EXAMPLE
    )
    parser.add_argument("run_dirs", nargs="+", metavar="DIR", type=path_argument, help="folder of a run or a sweep")
    parser.set_defaults(action=report)


def report(args: argparse.Namespace) -> int:
    """Write the pages and print their paths."""
    from server_app.report import ReportError, write_report
    from server_app.sweep.database import SweepError, holds_sweep
    from server_app.sweep.page import write_sweep_page
    from server_app.sweep.selection import ResultsError

    try:
        for folder in args.run_dirs:
            print((write_sweep_page if holds_sweep(folder) else write_report)(folder))
    except (ReportError, WriteError, SweepError, ResultsError) as error:
        raise CommandError(str(error)) from error
    return 0


def _add_preview(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Show what the clients of a simulation will hold: classes, sizes and wrong labels. Nothing is trained."
    about = "show classes, sizes and wrong labels of the clients"
    parser = commands.add_parser("preview", help=about, description=text, epilog=PREVIEW_EXAMPLE)
    parser.add_argument("words", nargs="*", metavar="recipe | key=value", help="a recipe, then settings that change it")
    parser.add_argument("--app", **APP)
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="preview",
        type=path_argument,
        help="folder for the files (default: preview/)",
    )
    parser.set_defaults(action=preview)


def preview(args: argparse.Namespace) -> int:
    """Write a picture and a page for each different division of the data; print them in short, with their paths."""
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError("the preview is drawn with matplotlib: pip install -e '.[report]'")
    plan = make_plan(args.words, args.app, Path.cwd())
    checked = check_parts(plan, recorded_here=False)
    chosen = different_data(checked)
    if len(checked) > len(chosen):
        print(f"All variants have the same data ({', '.join(checked)}); one preview shows it.\n")
    for variant, settings in chosen.items():
        name = f"preview-{variant}" if len(chosen) > 1 else "preview"
        if len(chosen) > 1:
            print(f"\nvariant {variant}")
        show(settings, args.output, name)
    return 0


def different_data(checked: Mapping[str, Settings]) -> dict[str, Settings]:
    """Return all variants if they differ in their data, else only the first."""
    from tasks.client_data import data_settings

    same = len({data_settings(settings) for settings in checked.values()}) == 1
    return dict(list(checked.items())[: 1 if same else None])


def show(settings: Settings, folder: Path, name: str) -> None:
    """Write picture and page of one variant, and print the summary and where they are.

    Raises
    ------
    CommandError
        If the data does not fit partition or noise, or the files cannot be written.
    """
    from server_app.report.preview_data import summary, take_survey
    from server_app.report.preview_page import write_preview
    from tasks.base import DataError
    from tasks.client_data import federated_noise, load_task
    from tasks.noise import NoiseError, unasked_issues
    from tasks.partition import PartitionError

    try:
        survey = take_survey(settings)
    except (DataError, NoiseError, PartitionError) as error:
        raise CommandError(str(error)) from error
    issues = without_effect(settings) + federated_noise(settings).issues()
    issues += unasked_issues(settings.noise) if load_task(settings.task).keeps_labels else []
    notes = [issue.line for issue in issues]
    try:
        paths = write_preview(survey, folder, name, notes)
    except OSError as error:
        raise CommandError(f"cannot write the preview into {folder.absolute()}: {error}") from error
    print(summary(survey))
    for line in [*(f"warning: {note}" for note in notes), *paths]:
        print(line)
