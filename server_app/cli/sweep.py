"""Sweep command, ``winnow sweep``: plays all runs of a sweep file side by side, and goes on where it stopped."""

import argparse
import importlib.util
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from server_app.cli import local
from server_app.cli.config import SWEEPS, CommandError, find_toml, make_importable, path_argument
from server_app.cli.processes import StopRequested, stop_requests
from server_app.cli.progress import Say, shown_progress
from server_app.cli.run import data_environment
from server_app.output import lasting_output
from tasks.files import WriteError, replace_file

if TYPE_CHECKING:
    from server_app.sweep.crew import Crew
    from server_app.sweep.plan import SweepPlan
    from tasks.config import Flat

TABLE = "results.md"
EXAMPLE = "example:  winnow sweep digits-quick"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Play all runs of a sweep file, several at a time, and compare them; what is finished is not played again."
    parser = commands.add_parser("sweep", help="play and compare many runs", description=text, epilog=EXAMPLE)
    parser.add_argument("file", metavar="FILE", help="a sweep file, or the name of one of ours (winnow list sweep)")
    parser.add_argument("--jobs", type=_count, metavar="N", help="runs side by side (default: as many as fit)")
    parser.add_argument("--ray", metavar="ADDRESS", help="play on a Ray cluster: its address, or auto")
    parser.add_argument("--output", type=path_argument, metavar="DIR", help="folder (default: runs/sweep-NAME)")
    parser.add_argument("--dry-run", action="store_true", help="check, list the runs and estimate the time")
    parser.add_argument("--keep-older-code", action="store_true", help="keep finished runs if the code has changed")
    parser.set_defaults(action=main)


def _count(text: str) -> int:
    """Read a number of runs from 1 on."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on expected")
    return int(text)


def main(args: argparse.Namespace) -> int:
    """Play, and return the exit code: 0 all completed, 1 some failed, 128 + the signal's number if stopped."""
    from server_app.engine.fork_server import EngineError
    from server_app.sweep.database import SweepError
    from server_app.sweep.plan import SweepPlan
    from tasks.base import DataError

    cwd = Path.cwd()
    path = find_toml(args.file, cwd, SWEEPS, "sweep file")
    make_importable(cwd)
    plan = SweepPlan.read(path, cwd)
    folder = cwd / (args.output or Path("runs", f"sweep-{plan.file.name}"))
    act = show_plan if args.dry_run else play
    with local.variables(data_environment(cwd)), lasting_output():
        try:
            return act(plan, path, folder, args)
        except (SweepError, EngineError, DataError) as error:
            raise CommandError(str(error)) from error


def play(plan: "SweepPlan", path: Path, folder: Path, args: argparse.Namespace) -> int:
    """Play all that is not finished."""
    from server_app.sweep.checks import check_runs
    from server_app.sweep.database import SweepDatabase
    from server_app.sweep.folder import claimed, keep_copy
    from server_app.sweep.ledger import Ledger
    from server_app.sweep.runner import SweepRunner

    with claimed(folder):
        for issue in check_runs(plan):
            print(f"warning: {issue.line}", flush=True)
        keep_copy(folder, path)
        database = SweepDatabase(folder, plan.design())
        crew = CrewOfPlan(plan, args.jobs, args.ray)
        print(f"Sweep {plan.file.name}: {counts(plan)}; {folder}", flush=True)
        try:
            with stop_requests(), shown_progress(sys.stdout) as (tell, advance):
                crew.say = tell
                ledger = Ledger(path, database, args.keep_older_code)
                failed = SweepRunner(plan, folder, database, ledger, crew, tell, advance).run()
        except StopRequested as stop:
            print(f"\nThe sweep was {stop.reason}; what is finished is kept.", file=sys.stderr)
            print(f"Continue with:  {again(args)}", file=sys.stderr)
            return 128 + stop.signum
        finally:
            crew.close()
            database.close()
    return _said(failed, folder, args)


def _said(failed: "list[tuple[str, str]]", folder: Path, args: argparse.Namespace) -> int:
    """Write and show the results, and say which runs failed."""
    show_results(folder)
    if not failed:
        return 0
    print(f"{len(failed)} runs failed, each twice:", file=sys.stderr)
    for name, reason in failed:
        print(f"  {name}: {reason}", file=sys.stderr)
    print(f"Try them again with:  {again(args)}", file=sys.stderr)
    return 1


def show_results(folder: Path) -> None:
    """Print the table of a sweep, and write it, the page and the pictures into its folder; their paths come last.

    What cannot be written or drawn is said, and no reason to call the sweep failed.
    """
    from server_app.cli.results import read_folder, rendered
    from server_app.sweep.comparison import compare
    from server_app.sweep.selection import ResultsError

    try:
        found = compare(*read_folder(folder))
        print(f"\n{rendered(found, 'table', shutil.get_terminal_size().columns)}", flush=True)
        replace_file(folder / TABLE, rendered(found, "markdown", 0).encode())
        print(f"Table: {folder / TABLE}", flush=True)
        if importlib.util.find_spec("matplotlib") is None:
            print("The page needs matplotlib: pip install -e '.[report]'", file=sys.stderr)
            return
        from server_app.sweep.page import write_sweep_page

        print(f"Page: {write_sweep_page(folder)}", flush=True)
    except (ResultsError, WriteError) as error:
        print(
            f"The results cannot be shown: {error} (try again: winnow results {shlex.quote(str(folder))})",
            file=sys.stderr,
        )


def again(args: argparse.Namespace) -> str:
    """Return the command that goes on with a sweep."""
    words = ["winnow", "sweep", args.file]
    words += ["--jobs", str(args.jobs)] if args.jobs else []
    words += ["--ray", args.ray] if args.ray else []
    words += ["--output", str(args.output)] if args.output else []
    return shlex.join([*words, *(["--keep-older-code"] if args.keep_older_code else [])])


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def counts(plan: "SweepPlan") -> str:
    """Return how many runs there are, as ``method 8 x noise 4 x seed 5 = 160 runs, 3 excluded``."""
    sizes = " x ".join(f"{axis} {len(options)}" for axis, options in plan.file.axes.items())
    excluded = f" without {plan.excluded} excluded" if plan.excluded else ""
    tuning = len(plan.tuning_runs())
    return f"{sizes} = {len(plan.points)} runs{excluded}" + (f", after {tuning} runs to tune" if tuning else "")


def show_plan(plan: "SweepPlan", path: Path, folder: Path, args: argparse.Namespace) -> int:
    """List the runs, and estimate how long those that are left will take; nothing is written."""
    from server_app.sweep.checks import check_runs
    from server_app.sweep.database import SweepDatabase, holds_sweep
    from server_app.sweep.estimate import measure, time_lines
    from server_app.sweep.ledger import Ledger

    for issue in check_runs(plan):
        print(f"warning: {issue.line}", flush=True)
    database = SweepDatabase(folder) if holds_sweep(folder) else None
    ledger = Ledger(path, database, args.keep_older_code)
    found = [ledger.look_up(runs) for runs in (plan.tuning_runs(), plan.final_runs())]
    entries = [entry for each in found for entry in each.entries]
    for entry in entries:
        print(f"{'finished' if entry.is_finished else 'to do':<9} {entry.planned.purpose:<7} {entry.planned.name}")
    left = [entry.planned for entry in entries if not entry.is_finished]
    print(f"{counts(plan)}: {len(entries) - len(left)} finished, {len(left)} to do", flush=True)
    for each in found:
        print(each.of_older_code() if each.older else "", end="\n" if each.older else "", flush=True)
    if left:
        crew = CrewOfPlan(plan, args.jobs, args.ray)
        try:
            with stop_requests():
                paces = measure(plan, crew())
        except StopRequested as stop:
            return 128 + stop.signum
        finally:
            crew.close()
        print("\n".join(time_lines(plan, left, paces, crew().size)))
    return 0


class CrewOfPlan:
    """Makes the processes of a sweep when the first is needed, and ends them.

    Parameters
    ----------
    jobs
        How many runs side by side; None = as many as cores and memory hold.
    address
        Of a Ray cluster; None = this machine.

    Attributes
    ----------
    say
        Takes each line for the user.
    """

    def __init__(self, plan: "SweepPlan", jobs: int | None, address: str | None) -> None:
        self._plan, self._jobs, self._address = plan, jobs, address
        self._crew: Crew | None = None
        self.say: Say = say

    def __call__(self) -> "Crew":
        """Return the processes."""
        if self._crew is None:
            flats = [run.flat for run in self._plan.samples()]
            if self._address:
                self._crew = on_cluster(flats, self._jobs, self._address)
            else:
                self._crew = here(flats, self._jobs, self.say)
        return self._crew

    def close(self) -> None:
        """End them."""
        if self._crew is not None:
            self._crew.close()


def here(flats: "Sequence[Flat]", jobs: int | None, tell: Say) -> "Crew":
    """Return processes on this machine; ``tell`` takes what there is to say about them."""
    from server_app.sweep.crew import LocalCrew

    return LocalCrew(local.client_variables({}), run_devices(flats, jobs), tell, limited=jobs is None)


def on_cluster(flats: "Sequence[Flat]", jobs: int | None, address: str) -> "Crew":
    """Return the machines of a Ray cluster; a run takes its threads, and a client's share of a GPU."""
    if importlib.util.find_spec("ray") is None:
        raise CommandError("--ray needs Ray: pip install -e '.[simulation]'")
    from server_app.sweep.keys import plugin_modules
    from server_app.sweep.ray_crew import RayCrew
    from tasks.config import parse

    settings = [parse(flat) for flat in flats]
    threads = max(each.train.threads or 1 for each in settings)
    share = {"num_cpus": threads, "num_gpus": max(each.federation.client_gpus for each in settings)}
    modules = sorted({module for flat in flats for module in plugin_modules(flat)})
    variables = {"OMP_NUM_THREADS": str(threads), **local.QUIET, **data_environment(Path.cwd())}
    return RayCrew(address, modules, variables, share, jobs)


def run_devices(flats: "Sequence[Flat]", jobs: int | None) -> list[dict[str, str]]:
    """Return for each process that plays runs its own environment: as many as cores, each with its threads and GPUs.

    On a machine with GPUs as many as have a share of one, ``federation.client-gpus``, or all of one.
    """
    from client_app.trainer import pick_device
    from tasks.config import parse

    settings = [parse(flat) for flat in flats]
    threads = max(each.train.threads or 1 for each in settings)
    if any(pick_device(each.train.device).type == "cuda" for each in settings):
        seen = [{local.VISIBLE: gpus} for gpus in local.shares(max(s.federation.client_gpus for s in settings) or 1.0)]
    else:
        seen = [{}] * max(1, local.cores() // threads)
    count = jobs or len(seen)
    return [seen[place % len(seen)] for place in range(count)]
