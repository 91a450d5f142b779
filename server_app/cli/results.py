"""Command ``winnow results``: the table of a sweep with its tests, for the terminal, a paper or another program."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from server_app.cli.config import CommandError, path_argument
from tasks.files import WriteError, replace_file
from tasks.plugins import did_you_mean

if TYPE_CHECKING:
    from server_app.sweep.database import SweepDesign, SweepRun
    from server_app.sweep.results import Comparison

FORMATS = ("table", "markdown", "latex", "csv", "csv-cells", "json")
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".txt": "table"}
SUMMARIES = ("last", "last-ten", "best")
EXAMPLE = "example:  winnow results runs/sweep-digits --where noise!=clean --format markdown"
FILE_WIDTH = 120


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    about = "Show the results of a sweep: means, intervals, paired tests and ranks. Nothing is trained."
    parser = commands.add_parser("results", help="show the results of a sweep", description=about, epilog=EXAMPLE)
    parser.add_argument("folder", metavar="DIR", type=path_argument, help="folder of a sweep")
    parser.add_argument(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="AXIS=OPTION",
        help="only these runs: an axis or a setting, options with commas between them; != for all others",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="csv has a line for each run, csv-cells for each cell of the table (default: by the ending of --output, "
        "else table)",
    )
    parser.add_argument("--summary", choices=SUMMARIES, help="what counts of a run (default: as the sweep says)")
    parser.add_argument("--measure", metavar="NAME", default="", help="on test data (default: as the sweep says)")
    parser.add_argument("--baseline", metavar="OPTION", default="", help="with what others are compared")
    parser.add_argument("--output", metavar="FILE", type=path_argument, help="write the results there")
    parser.add_argument("--parquet", metavar="FILE", type=path_argument, help="also write all measures of all rounds")
    parser.set_defaults(action=results)


def results(args: argparse.Namespace) -> int:
    """Print or write the results."""
    from server_app.sweep.comparison import compare
    from server_app.sweep.selection import ResultsError, parse_condition

    form = args.format or _form_of(args.output)
    design, runs = read_folder(args.folder)
    try:
        where = [parse_condition(word) for word in args.where]
        found = compare(design, runs, where, args.measure, args.summary or "", args.baseline)
    except ResultsError as error:
        raise CommandError(f"{args.folder}: {error}") from error
    if args.parquet:
        print(_write_parquet(args.parquet, design, runs), file=sys.stderr)
    text = rendered(found, form, FILE_WIDTH if args.output else shutil.get_terminal_size().columns)
    if args.output:
        print(_write(args.output, text.encode()))
    else:
        sys.stdout.write(text)
    return 0


def _form_of(output: Path | None) -> str:
    if output is None:
        return "table"
    form = SUFFIXES.get(output.suffix.lower())
    if form is None:
        hint = did_you_mean(output.suffix, SUFFIXES)
        raise CommandError(f"--output {output}: say with --format what it is to hold, or choose another ending{hint}")
    return form


def read_folder(folder: Path) -> "tuple[SweepDesign, list[SweepRun]]":
    """Return what a sweep compares, and its runs.

    Raises
    ------
    CommandError
        If it is no folder of a sweep, or its database cannot be read.
    """
    from server_app.sweep.database import FILE, SweepDatabase, SweepError

    try:
        database = SweepDatabase(folder.parent if folder.name == FILE else folder)
        try:
            return database.design(), database.runs()
        finally:
            database.close()
    except SweepError as error:
        raise CommandError(str(error)) from error


def rendered(found: "Comparison", form: str, width: int) -> str:
    """Return the results in one of the formats, with a line's end."""
    from server_app.sweep import exports, tables

    if form == "table":
        return tables.text_table(found, width) + "\n"
    if form == "markdown":
        return tables.markdown_table(found) + "\n"
    if form == "latex":
        return tables.latex_table(found) + "\n"
    if form == "json":
        return exports.results_json(found)
    return exports.cells_csv(found) if form == "csv-cells" else exports.runs_csv(found)


def _write_parquet(path: Path, design: "SweepDesign", runs: "list[SweepRun]") -> Path:
    from server_app.sweep.exports import parquet

    try:
        content = parquet(design, runs)
    except ImportError as error:
        raise CommandError(f"--parquet: {error}") from error
    return _write(path, content)


def _write(path: Path, content: bytes) -> Path:
    try:
        replace_file(path, content)
    except WriteError as error:
        raise CommandError(str(error)) from error
    return path.absolute()
