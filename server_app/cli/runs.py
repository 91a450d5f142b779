"""Commands ``winnow runs`` and ``winnow compare``: which runs and sweeps there are, and runs side by side."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server_app.cli.config import CommandError, path_argument
from tasks.arguments import closest
from tasks.config import DEFAULTS
from tasks.setting_values import same_value, value_text

if TYPE_CHECKING:
    from server_app.report.listing import ListedRun

RUNS = "runs"
COMPARE_FORMATS = ("table", "markdown", "csv", "json")
UNLIMITED = 10**6
RUNS_EXAMPLE = "example:  winnow runs --where state=completed tag=pilot"
COMPARE_EXAMPLE = "example:  winnow compare runs/20260131-101500-*"
HEADINGS = ("run", "state", "rounds", "accuracy", "task", "method", "noise", "tags")
COLUMNS = (
    *("path", "kind", "name", "started", "state", "done", "planned", "task", "method", "noise", "measure", "value"),
    *("tags", "note", "problem"),
)
FIELDS: dict[str, Callable[["ListedRun"], Sequence[str]]] = {
    "name": lambda run: (run.name,),
    "tag": lambda run: run.tags,
    "state": lambda run: (run.state,),
    "kind": lambda run: (run.kind,),
    "task": lambda run: (_setting(run, "task.name"),),
    "method": lambda run: (_setting(run, "method.name"),),
    "loss": lambda run: (_setting(run, "loss.name"),),
    "noise": lambda run: (_setting(run, "noise.name"),),
    "aggregator": lambda run: (_setting(run, "strategy.aggregator"),),
}
"""What ``--where`` knows beside the settings, with a run's values."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command lines of both."""
    about = "List runs and sweeps below a folder, newest first."
    parser = commands.add_parser("runs", help="list runs and sweeps", description=about, epilog=RUNS_EXAMPLE)
    parser.add_argument(
        "folder", nargs="?", metavar="DIR", type=path_argument, help="folder to look in (default: runs/)"
    )
    parser.add_argument(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help=f"only these: {', '.join(FIELDS)} or any setting, values with commas between them; != for all others",
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    parser.set_defaults(action=runs)
    about = "Show runs side by side, and the settings in which they differ."
    parser = commands.add_parser("compare", help="show runs side by side", description=about, epilog=COMPARE_EXAMPLE)
    about = "folder of a run, or name of runs below runs/"
    parser.add_argument("runs", nargs="+", metavar="RUN", type=path_argument, help=about)
    parser.add_argument(
        "--format", choices=("table", "markdown", "csv", "json"), default="table", help="default: table"
    )
    parser.set_defaults(action=compare)


def runs(args: argparse.Namespace) -> int:
    """Print the list."""
    from server_app.report.listing import list_runs

    folder = args.folder or Path(RUNS)
    if not os.path.isdir(folder):
        remedy = "" if args.folder else ": name the folder that holds your runs"
        raise CommandError(f"there is no folder {folder.absolute()}{remedy}")
    conditions = [parse_condition(word) for word in args.where]
    found = [run for run in list_runs(folder) if all(condition(run) for condition in conditions)]
    sys.stdout.write(_written(found, args.format, folder))
    return 0


def parse_condition(word: str) -> "Callable[[ListedRun], bool]":
    """Return the test of ``field=value``, ``field=value,value`` or ``field!=value``.

    Raises
    ------
    CommandError
        If it is none of these, or the field is unknown.
    """
    name, equals, text = word.partition("=")
    negated, name = name.endswith("!"), name.removesuffix("!").strip()
    if not equals or not name:
        raise CommandError(f"--where {word}: expected FIELD=VALUE, FIELD=VALUE,VALUE or FIELD!=VALUE")
    if name not in FIELDS and name not in DEFAULTS:
        close = closest(name, [*FIELDS, *DEFAULTS])
        hint = f"did you mean {close!r}?" if close else f"expected {', '.join(FIELDS)} or a setting"
        raise CommandError(f"--where: unknown field {name!r}; {hint}")
    wanted = [value.strip() for value in text.split(",")]
    values: Callable[[ListedRun], Sequence[str]] = FIELDS.get(name) or (lambda run: (_setting(run, name),))
    return lambda run: any(same_value(value, each) for value in values(run) for each in wanted) != negated


def _setting(run: "ListedRun", key: str) -> str:
    return value_text(run.settings.get(key, ""))


def _written(found: "Sequence[ListedRun]", form: str, folder: Path) -> str:
    from server_app.report.text_tables import csv_text, narrowed

    if form == "json":
        return json.dumps([_entry(run) for run in found], indent=2, ensure_ascii=False) + "\n"
    if form == "csv":
        entries = [{**_entry(run), "tags": ",".join(run.tags)} for run in found]
        return csv_text([list(COLUMNS), *([entry[name] for name in COLUMNS] for entry in entries)])
    if not found:
        return f"no runs in {folder.absolute()}\n"
    table, left_out = narrowed([HEADINGS, *(_row(run, folder) for run in found)], screen_width())
    more = [f"(no room for {', '.join(left_out)}: --format csv has all)"] if left_out else []
    problems = [f"{_shown_path(run, folder)}: {run.problem}" for run in found if run.problem]
    return "\n".join([table, *more, *(["", *problems] if problems else [])]) + "\n"


def _entry(run: "ListedRun") -> dict[str, Any]:
    """Return what programs read of a run; shares are in [0, 1]."""
    started = datetime.fromtimestamp(run.started).astimezone().isoformat(timespec="seconds") if run.started else ""
    return {
        "path": str(run.path.absolute()),
        "kind": run.kind,
        "name": run.name,
        "started": started,
        "state": run.state,
        "done": run.done,
        "planned": run.planned,
        "task": _setting(run, "task.name"),
        "method": method_of(run),
        "noise": noise_of(run),
        "measure": run.measure,
        "value": run.value,
        "tags": list(run.tags),
        "note": run.note,
        "problem": run.problem,
    }


def _row(run: "ListedRun", folder: Path) -> tuple[str, ...]:
    from server_app.report.listing import SWEEP
    from server_app.report.text import NONE, measure_value, single_line

    value = measure_value(run.measure, run.value) if run.measure else NONE
    other = run.measure if run.measure != "accuracy" else ""
    done = "" if run.done is None else f"{run.done}{'' if run.planned is None else f'/{run.planned}'}"
    texts = (
        _shown_path(run, folder),
        run.state,
        f"{done} runs" if run.kind == SWEEP and done else done,
        f"{other} {value}".strip(),
        _setting(run, "task.name"),
        method_of(run),
        noise_of(run),
        ", ".join(run.tags),
    )
    return tuple(single_line(text) for text in texts)


def _shown_path(run: "ListedRun", folder: Path) -> str:
    return str(run.path.relative_to(folder)) if run.path != folder else str(folder)


def method_of(run: "ListedRun") -> str:
    """Return loss, client method and aggregation in short, the usual ones of the latter two not; a sweep's axes."""
    if run.axes:
        return run.axes
    keys = ("loss.name", "method.name", "strategy.name", "strategy.aggregator")
    loss, method, strategy, aggregator = (_setting(run, key) for key in keys)
    parts = [loss, method if method != DEFAULTS["method.name"] else ""]
    parts.append(aggregator if strategy == DEFAULTS["strategy.name"] else strategy)
    return " + ".join(part for part in parts if part)


def noise_of(run: "ListedRun") -> str:
    """Return the label noise of a run in short, with its rates."""
    name, rates = _setting(run, "noise.name"), _setting(run, "noise.rates-args")
    return name if name in ("", "none") or not rates else f"{name}, {rates}"


def screen_width() -> int:
    """Return how many characters a line may have: as the terminal says, any number in a file or a pipe."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return UNLIMITED
    return shutil.get_terminal_size().columns


def compare(args: argparse.Namespace) -> int:
    """Print the comparison."""
    from server_app.report import table
    from server_app.report.files import ReportError

    folders = chosen_runs(args.runs)
    try:
        if args.format == "table":
            print(table.comparison_table(folders, screen_width()))
        else:
            form = {"markdown": table.comparison_markdown, "csv": table.comparison_csv, "json": table.comparison_json}
            sys.stdout.write(form[args.format](folders).rstrip("\n") + "\n")
    except ReportError as error:
        raise CommandError(str(error)) from error
    return 0


def chosen_runs(given: Iterable[Path]) -> list[Path]:
    """Return the folders of the runs that are meant: folders, or names of runs below ``runs/``; each once.

    A name that several runs have means all of them, the oldest first.

    Raises
    ------
    CommandError
        If a word is neither, or a sweep.
    """
    from server_app.report.listing import RUN, SWEEP, list_runs, listed

    known: list[ListedRun] | None = None
    found: list[ListedRun] = []
    for path in given:
        if os.path.isdir(path):  # unlike Path.is_dir false for a name that is too long
            found.append(listed(path))
            continue
        word = str(path)
        known = list_runs(Path(RUNS))[::-1] if known is None else known
        named = [run for run in known if word in (run.name, run.label, run.path.name)]
        if not named:
            names = {name for run in known for name in (run.name, run.label, run.path.name) if name and run.kind == RUN}
            close = closest(word, sorted(names))
            hint = f"; did you mean {close!r}?" if close else "; winnow runs lists them"
            raise CommandError(f"no run {word!r}: neither a folder nor a name below {RUNS}/{hint}")
        found += named
    sweeps = [run.path for run in found if run.kind == SWEEP]
    if sweeps:
        raise CommandError(f"{sweeps[0]} is a sweep: show it with  winnow results {sweeps[0]}")
    return list(dict.fromkeys(run.path for run in found))
