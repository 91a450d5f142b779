"""``winnow run``: ``flwr run`` with a check before, a truthful exit status after, and nothing left running."""

import argparse
import importlib.util
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import DEVNULL, Popen
from typing import TYPE_CHECKING

import tomli_w

from server_app.command.configuration import CommandError, Plan, make_plan
from server_app.command.environment import SuperLinkError
from server_app.command.output import RunLog
from server_app.command.preparation import (
    check_parts,
    check_plan,
    data_environment,
    describe,
    federation_config,
    run_environment,
)
from server_app.command.processes import StopRequested, stop_requests
from server_app.command.superlink import CONNECTION, Connection, local_superlink
from tasks.settings import Settings

if TYPE_CHECKING:
    from server_app.run_directory import RunDirectory

COMPLETED, FAILED, STOPPED = "finished:completed", "finished:failed", "finished:stopped"
LOST = "No heartbeat received from the task"
EXAMPLE = "example:  winnow run demo num-server-rounds=5 loss.name=gce"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Simulate a federation: check the settings, run on this machine, exit with 0 only if the run completed."
    parser = commands.add_parser("run", help="simulate a federation", description=text, epilog=EXAMPLE)
    parser.add_argument("words", nargs="*", metavar="recipe | key=value", help="a recipe, then settings that change it")
    parser.add_argument("--app", metavar="DIR", help="folder of the app (default: here, else the installed checkout)")
    parser.add_argument("--dry-run", action="store_true", help="check and show the settings; start nothing")
    parser.add_argument("--verbose", action="store_true", help="show Flower's and Ray's own messages too")
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Run, and return the exit code: 0 completed, 1 failed, 128 + the signal's number if stopped."""
    plan = make_plan(args.words, args.app, Path.cwd())
    if args.dry_run:
        print(describe(plan, check_plan(plan)))
        return 0
    return exit_code(lambda log: simulate(plan, log), RunLog(args.verbose), "winnow run")


def exit_code(play: Callable[[RunLog], tuple[str, str]], log: RunLog, command: str) -> int:
    """Play a run and return the exit code; ``command`` is how the user would continue what ends early."""
    try:
        with stop_requests():
            status, details = play(log)
    except StopRequested as stop:
        close_record(log, "stopped", f"by {signal.Signals(stop.signum).name}", command)
        return 128 + stop.signum
    except SuperLinkError as error:
        status, details = FAILED, str(error)
    if status == COMPLETED:
        return 0
    close_record(log, "failed", details, command)
    return 1


def simulate(plan: Plan, log: RunLog) -> tuple[str, str]:
    """Play the run on a SuperLink of its own and return its status in Flower's words, with details."""
    if importlib.util.find_spec("ray") is None:
        raise CommandError("a simulation needs Ray: pip install -e '.[simulation]'")
    with local_superlink(run_environment(plan, True, data_environment(Path.cwd()))) as link:
        settings = next(iter(check_parts(plan).values()))  # while the SuperLink starts
        clients = settings.federation.num_clients
        print(f"The settings are fine. Starting {clients} simulated clients (10 to 40 s) ...", flush=True)
        link.wait_until_ready()
        try:
            return play(link, plan, settings, log)
        except StopRequested:
            print("\nStopping the run ...", flush=True)
            raise


def play(link: Connection, plan: Plan, settings: Settings, log: RunLog) -> tuple[str, str]:
    """Submit the run, follow its log to the end and return its status with details."""
    return watch(link, submit(link, plan, "--federation-config", federation_config(settings)), log)


def submit(link: Connection, plan: Plan, *options: str) -> str:
    """Submit the run and return its id."""
    overrides = link.home / "overrides.toml"
    overrides.write_text(tomli_w.dumps(plan.overrides()), encoding="utf-8")
    return str(link.ask("run", str(plan.app), CONNECTION, "-c", str(overrides), *options)["run-id"])


def watch(link: Connection, run_id: str, log: RunLog) -> tuple[str, str]:
    """Follow the log of a run to its end and return its status with details."""
    shown = 0
    while True:
        shown = follow(link, run_id, log, shown)
        record = link.ask("ls", CONNECTION, "--run-id", run_id)["runs"][0]
        if record["status"].startswith("finished"):
            return record["status"], explain(record["status-details"])


def explain(details: str) -> str:
    """Return Flower's details of how a run ended, in words that say what has happened.

    >>> explain("No heartbeat received from the task")
    'the ServerApp died: killed, or out of memory (No heartbeat received from the task)'
    """
    return f"the ServerApp died: killed, or out of memory ({details})" if details == LOST else details


def follow(link: Connection, run_id: str, log: RunLog, skip: int) -> int:
    """Print the log until it ends, without its first ``skip`` lines; return how many lines it had.

    Raises
    ------
    SuperLinkError
        If a process that the run needs has ended.
    """
    program = link.start("flwr", "log", run_id, CONNECTION, "--stream", errors=DEVNULL)  # only the log is counted
    lines: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_pump, args=(program, lines), daemon=True).start()
    count = 0
    while True:
        try:
            line = lines.get(timeout=1.0)
        except Empty:
            link.check()
            continue
        if line is None:
            return count
        count += 1
        if count > skip:
            log.write(line)


def _pump(program: "Popen[str]", lines: "SimpleQueue[str | None]") -> None:
    assert program.stdout is not None
    for line in program.stdout:
        lines.put(line)
    lines.put(None)


def close_record(log: RunLog, status: str, reason: str, command: str) -> None:
    """Say how the run ended and where its record is; complete the record where the app could not."""
    print(f"The run {'was stopped' if status == 'stopped' else 'failed:'} {reason}", file=sys.stderr)
    if log.run_directory is None:
        print("It ended before it had a run directory.", file=sys.stderr)
        return
    from server_app.checkpoint_folder import CheckpointFolder
    from server_app.run_directory import RunDirectory

    directory = RunDirectory(log.run_directory)
    _complete(directory, status, f"{status} {reason}" if status == "stopped" else reason)
    print(f"Run directory: {directory.path}", file=sys.stderr)
    if CheckpointFolder(directory.path).holds_any():
        print(f"Continue with:  {command} run.resume={directory.path}", file=sys.stderr)
    elif not directory.path.exists():
        print(
            f"It is where the ServerApp runs; continue there:  {command} run.resume={directory.path}", file=sys.stderr
        )


def _complete(directory: "RunDirectory", status: str, reason: str) -> None:
    from server_app.report import ReportError, write_report

    unfinished = ("running", "failed") if status == "stopped" else ("running",)
    try:
        if directory.status().get("status") in unfinished:
            directory.finish(status, reason)
            write_report(directory.path)
    except (OSError, ReportError) as error:  # a full disk, or one that may only be read here
        print(f"Its record could not be completed: {error}", file=sys.stderr)
