"""Run command, ``winnow run``: a simulation with a check before, a truthful exit status, and nothing left running.

Before anything starts the settings are merged and checked. Of the run's log the user sees the app's own lines, warnings
and errors, without Flower's and Ray's routine.
"""

import argparse
import functools
import importlib.util
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import DEVNULL, Popen
from typing import TYPE_CHECKING

import tomli_w

from server_app.cli import local, ray_start
from server_app.cli.config import APP, CommandError, RunPlan, installed_app, make_plan, output_issues, path_below
from server_app.cli.garbage import no_collections
from server_app.cli.packages import bundle_issues
from server_app.cli.processes import StopRequested, stop_requests
from server_app.cli.run_log import RunLog
from server_app.cli.superlink import CONNECTION, Connection, SuperLinkError, local_superlink, writing
from server_app.output import lasting_output
from tasks.config import CHECKED, REPEAT, ConfigError, digest
from tasks.issues import ERROR, Issue
from tasks.protocol import Mode
from tasks.settings import FederationSettings, Settings

if TYPE_CHECKING:
    from server_app.storage.run_directory import RunDirectory
    from server_app.validation.config import Validated

ENGINES = ("local", "flower")
WHICH = "who simulates: our own processes (default), or Flower's engine with Ray (default with --app elsewhere)"
COMPLETED, FAILED, STOPPED = "finished:completed", "finished:failed", "finished:stopped"
LOST = "No heartbeat received from the task"
EXAMPLE = "example:  winnow run demo num-server-rounds=5 loss.name=gce"
WORDS = "a recipe, or recipe@setting,setting (winnow list recipe), then settings that change it"


def check_parts(plan: RunPlan, mode: Mode = Mode.SIMULATION, recorded_here: bool | None = None) -> dict[str, Settings]:
    """Return the settings by variant, after building every part of every variant once.

    Also checked: that the machine can hold one client, that plug-ins reach the processes of the run, and, unless it is
    not ``recorded_here`` (None: a simulation is), that it can be.

    Raises
    ------
    ConfigError
        With every error found.
    """
    return check_plan(plan, mode, recorded_here).settings


def check_plan(plan: RunPlan, mode: Mode = Mode.SIMULATION, recorded_here: bool | None = None) -> "Validated":
    """Return the settings by variant and the warnings; see :func:`check_parts`."""
    with no_collections():
        from server_app.validation.config import validate

    here = mode is Mode.SIMULATION if recorded_here is None else recorded_here
    own = output_issues(plan) if here else []
    try:
        checked = validate(plan.flat, mode)
    except ConfigError as error:
        raise ConfigError([*error.issues, *own]) from error
    if own:
        raise ConfigError(own)
    settings = checked.settings
    problems = beyond_machine(next(iter(settings.values())).federation) + bundle_issues(plan.app, settings.values())
    if problems:
        raise ConfigError(problems)
    return checked


def beyond_machine(federation: FederationSettings) -> list[Issue]:
    """Return what one client asks for and this machine does not have: Ray would wait for it, or fail obscurely."""
    import torch

    cpus, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    problems = []
    if federation.client_cpus > cpus:
        text = f"federation.client-cpus = {federation.client_cpus}: this machine has {cpus}"
        problems.append(Issue(ERROR, "federation.client-cpus", text))
    if federation.client_gpus > gpus:
        text = f"federation.client-gpus = {federation.client_gpus:g}: this machine has {gpus}"
        problems.append(Issue(ERROR, "federation.client-gpus", text))
    return problems


def describe(plan: RunPlan, checked: "Validated") -> str:
    """Return what would run, as text."""
    from server_app.wrong_labels import wrong_labels_line

    settings = checked.settings
    lines = [f"app: {plan.app}", f"federation: {federation_config(next(iter(settings.values())))}"]
    lines += [f"variants: {', '.join(settings)}"] if len(settings) > 1 else []
    lines += dict.fromkeys(wrong_labels_line(each, Mode.SIMULATION) for each in settings.values())
    lines += [f"warning: {issue.line}" for issue in checked.warnings]
    changes = [
        tomli_w.dumps({key: value}).strip().replace(f'"{key}"', key, 1) for key, value in plan.overrides().items()
    ]
    return "\n".join([*lines, "settings that differ from the app's defaults:", *(changes or ["(none)"])])


def federation_config(settings: Settings) -> str:
    """Return Flower's simulation settings: as many nodes as clients, and the share of the machine for each."""
    federation = settings.federation
    return (
        f"num-supernodes={federation.num_clients} "
        f"client-resources-num-cpus={federation.client_cpus or 1} "
        f"client-resources-num-gpus={float(federation.client_gpus)}"
    )


def data_environment(cwd: Path) -> dict[str, str]:
    """Return the data root as an absolute path: Flower's processes work in another folder."""
    return {"WINNOW_DATA": str(path_below(cwd, os.environ.get("WINNOW_DATA", "data"), "WINNOW_DATA"))}


def run_environment(plan: RunPlan, mode: Mode, data: Mapping[str, str], *command: str) -> dict[str, str]:
    """Return ``data``, the ``command`` for the record, and the promise that :func:`check_parts` comes before a run.

    The ServerApp then need not divide the data and try the plug-ins a second time; see :func:`server_app.app.main`.
    """
    elsewhere = ["--app", str(plan.app)] if plan.app != installed_app() else []
    return {**data, CHECKED: digest(plan.flat, mode), REPEAT: shlex.join([*command, *elsewhere])}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Simulate a federation: check the settings, run on this machine, exit with 0 only if the run completed."
    parser = commands.add_parser("run", help="simulate a federation", description=text, epilog=EXAMPLE)
    parser.add_argument("words", nargs="*", metavar="recipe | key=value", help=WORDS)
    parser.add_argument("--app", **APP)
    parser.add_argument("--engine", choices=ENGINES, help=WHICH)
    parser.add_argument("--dry-run", action="store_true", help="check and show the settings; start nothing")
    parser.add_argument("--verbose", action="store_true", help="show Flower's and Ray's own messages too")
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Run, and return the exit code: 0 completed, 1 failed, 128 + the signal's number if stopped."""
    plan = make_plan(args.words, args.app, Path.cwd())
    if args.dry_run:
        print(describe(plan, check_plan(plan)))
        return 0
    name = args.engine or ENGINES[plan.app != installed_app()]
    if name == "flower":
        plan.sent()
    engine = simulate if name == "flower" else simulate_locally
    return exit_code(lambda log: engine(plan, log), RunLog(args.verbose), "winnow run")


def exit_code(run: Callable[[RunLog], tuple[str, str]], log: RunLog, command: str) -> int:
    """Do a run and return the exit code; ``command`` is how the user would continue what ends early.

    When nobody takes its output any more, the run goes on without.
    """
    with lasting_output() as loss:
        code = _run_to_the_end(run, log, command)
        if loss.reason:
            ended = f"the run went on and ended with exit status {code}: {log.run_directory or 'no run directory'}"
            print(f"Output was lost ({loss.reason}); {ended}", file=sys.stderr)
    return code


def _run_to_the_end(run: Callable[[RunLog], tuple[str, str]], log: RunLog, command: str) -> int:
    try:
        with stop_requests():
            status, details = run(log)
    except StopRequested as stop:
        close_record(log, "stopped", f"by {signal.Signals(stop.signum).name}", command)
        return 128 + stop.signum
    except SuperLinkError as error:
        status, details = FAILED, str(error)
    except BaseException as error:  # whatever it is: the record must not say "running" for ever
        if log.run_directory is not None:
            close_record(log, "failed", f"winnow could not go on: {type(error).__name__}: {error}", command)
        raise
    if status == COMPLETED:
        return 0
    close_record(log, "failed", details, command)
    return 1


def simulate_locally(plan: RunPlan, log: RunLog) -> tuple[str, str]:
    """Do the run with worker processes of ours; returns what :func:`simulate` does."""
    own = run_environment(plan, Mode.SIMULATION, data_environment(Path.cwd()), "winnow", "run")
    return local.simulate(plan, lambda: _checked(plan, "a few seconds"), own, log)


def simulate(plan: RunPlan, log: RunLog) -> tuple[str, str]:
    """Do the run on a SuperLink of its own and return its status in Flower's words, with details."""
    if importlib.util.find_spec("ray") is None:
        raise CommandError("a simulation needs Ray: pip install -e '.[simulation]'")
    settings = functools.cache(lambda: _checked(plan, "10 to 40 s"))  # only once, however often Ray is started
    return ray_start.attempts(
        lambda variables: _attempt(plan, log, settings, variables),
        lambda: log.start.failure,
        lambda text: _begin_again(log, text),
    )


def _checked(plan: RunPlan, how_long: str) -> Settings:
    variants = check_parts(plan)
    _encode(variants.values())
    settings = next(iter(variants.values()))
    clients = settings.federation.num_clients
    print(f"The settings are fine. Starting {clients} simulated clients ({how_long}) ...", flush=True)
    return settings


def _encode(variants: Iterable[Settings]) -> None:
    """Encode the examples of all variants, here where the user sees how far it is."""
    from tasks.base import DataError
    from tasks.client_data import encode_examples

    try:
        for settings in variants:
            encode_examples(settings.task)
    except DataError as error:
        raise CommandError(f"task.encoder: {error}") from error


def _attempt(
    plan: RunPlan, log: RunLog, settings: Callable[[], Settings], variables: Mapping[str, str]
) -> tuple[str, str]:
    own = {**variables, **data_environment(Path.cwd())}
    environment = run_environment(plan, Mode.SIMULATION, own, "winnow", "run", "--engine", "flower")
    with local_superlink(environment) as link:
        settings()  # while the SuperLink starts
        link.wait_until_ready()
        with local.told_of_a_stop():
            return submit_and_watch(link, plan, settings(), log)


def _begin_again(log: RunLog, text: str) -> None:
    """Close the record of a run in which no client was asked anything, and say that another begins."""
    from server_app.storage.run_directory import RunDirectory

    print(text, flush=True)
    if log.run_directory is not None:
        _complete(RunDirectory(log.run_directory), "failed", text)
    log.begin()


def submit_and_watch(link: Connection, plan: RunPlan, settings: Settings, log: RunLog) -> tuple[str, str]:
    """Submit the run, follow its log to the end and return its status with details."""
    return watch(link, submit(link, plan, "--federation-config", federation_config(settings)), log)


def submit(link: Connection, plan: RunPlan, *options: str) -> str:
    """Submit the run and return its id."""
    overrides = link.home / "overrides.toml"
    with writing(link.home):
        overrides.write_text(tomli_w.dumps(plan.overrides()), encoding="utf-8")
    return str(link.ask("run", str(plan.sent()), CONNECTION, "-c", str(overrides), *options)["run-id"])


def watch(link: Connection, run_id: str, log: RunLog) -> tuple[str, str]:
    """Follow the log of a run to its end and return its status with details."""
    shown = 0
    while True:
        shown = follow(link, run_id, log, shown)
        record = link.ask("ls", CONNECTION, "--run-id", run_id)["runs"][0]
        if record["status"].startswith("finished"):
            log.end()
            return record["status"], ending(record["status-details"])


def ending(details: str) -> str:
    """Return Flower's details of how a run ended, in words that say what has happened.

    >>> ending("No heartbeat received from the task").partition(" (")[0]
    'the ServerApp died or stood still: killed, out of memory, or the machine slept'
    """
    what = "the ServerApp died or stood still: killed, out of memory, or the machine slept"
    return f"{what} ({details})" if details == LOST else details


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
    from server_app.storage.checkpoints import CheckpointFolder
    from server_app.storage.run_directory import RunDirectory

    directory = RunDirectory(log.run_directory)
    _complete(directory, status, f"{status} {reason}" if status == "stopped" else reason)
    print(f"Run directory: {directory.path}", file=sys.stderr)
    again = f"{command} {shlex.quote(f'run.resume={directory.path}')}"
    if CheckpointFolder(directory.path).holds_any():
        print(f"Continue with:  {again}", file=sys.stderr)
    elif not directory.path.exists():
        print(f"It is where the ServerApp runs; continue there:  {again}", file=sys.stderr)


def _complete(directory: "RunDirectory", status: str, reason: str) -> None:
    from server_app.report import ReportError, write_report

    unfinished = ("running", "failed") if status == "stopped" else ("running",)
    try:
        if directory.status().get("status") in unfinished:
            directory.finish(status, reason)
            write_report(directory.path)
    except (OSError, ReportError) as error:  # a full disk, or one that may only be read here
        print(f"Its record could not be completed: {error}", file=sys.stderr)
