"""``winnow preview``: what the clients of a simulation will hold, as picture, page and text; nothing is trained."""

import argparse
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from server_app.command.configuration import CommandError, make_plan
from server_app.command.preparation import check_parts
from tasks.config import without_effect
from tasks.settings import Settings

EXAMPLE = "example:  winnow preview demo partition.args='alpha = 0.1' noise.law-args='max = 0.4'"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Show what the clients of a simulation will hold: classes, sizes and wrong labels. Nothing is trained."
    about = "show classes, sizes and wrong labels of the clients"
    parser = commands.add_parser("preview", help=about, description=text, epilog=EXAMPLE)
    parser.add_argument("words", nargs="*", metavar="recipe | key=value", help="a recipe, then settings that change it")
    parser.add_argument("--app", metavar="DIR", help="folder of the app (default: here, else the installed checkout)")
    parser.add_argument("--output", metavar="DIR", default="preview", help="folder for the files (default: preview/)")
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Write a picture and a page for each different division of the data; print them in short, with their paths."""
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError("the preview is drawn with matplotlib: pip install -e '.[report]'")
    plan = make_plan(args.words, args.app, Path.cwd())
    checked = check_parts(plan)
    chosen = different_data(checked)
    if len(checked) > len(chosen):
        print(f"All arms have the same data ({', '.join(checked)}); one preview shows it.\n")
    for arm, settings in chosen.items():
        name = f"preview-{arm}" if len(chosen) > 1 else "preview"
        if len(chosen) > 1:
            print(f"\narm {arm}")
        show(settings, Path(args.output), name)
    return 0


def different_data(checked: Mapping[str, Settings]) -> dict[str, Settings]:
    """Return all arms if they differ in their data, else only the first."""
    from tasks.shares import data_settings

    same = len({data_settings(settings) for settings in checked.values()}) == 1
    return dict(list(checked.items())[: 1 if same else None])


def show(settings: Settings, folder: Path, name: str) -> None:
    """Write picture and page of one arm, and print the summary and where they are.

    Raises
    ------
    CommandError
        If the data does not fit partition or noise, or the files cannot be written.
    """
    from server_app.preview.page import write_preview
    from server_app.preview.survey import take_survey
    from server_app.preview.words import summary
    from tasks.base import DataError
    from tasks.noise import NoiseError
    from tasks.partition import PartitionError
    from tasks.shares import federated_noise

    try:
        survey = take_survey(settings)
    except (DataError, NoiseError, PartitionError) as error:
        raise CommandError(str(error)) from error
    notes = [issue.line for issue in without_effect(settings) + federated_noise(settings).issues()]
    try:
        paths = write_preview(survey, folder, name, notes)
    except OSError as error:
        raise CommandError(f"cannot write the preview into {folder.absolute()}: {error}") from error
    print(summary(survey))
    for line in [*(f"warning: {note}" for note in notes), *paths]:
        print(line)
