"""``winnow run``: ``flwr run`` with a check before, a truthful exit status after, and nothing left running."""

import argparse
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import Popen

import tomli_w

from server_app.command.configuration import CommandError, Plan, make_plan
from server_app.command.output import RunLog
from server_app.command.processes import StopRequested, stop_requests
from server_app.command.superlink import CONNECTION, Connection, SuperLinkError, local_superlink
from tasks.config import ConfigError
from tasks.settings import FederationSettings, Settings

COMPLETED, FAILED = "finished:completed", "finished:failed"
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
        print(describe(plan, check_parts(plan)))
        return 0
    log = RunLog(args.verbose)
    try:
        with stop_requests():
            status, details = simulate(plan, log)
    except StopRequested as stop:
        close_record(log, "stopped", f"by {signal.Signals(stop.signum).name}")
        return 128 + stop.signum
    except SuperLinkError as error:
        status, details = FAILED, str(error)
    if status == COMPLETED:
        return 0
    close_record(log, "failed", details)
    return 1


def check_parts(plan: Plan) -> dict[str, Settings]:
    """Build every part of every arm once, and check that the machine can hold one client; return the settings by arm.

    Raises
    ------
    ConfigError
        With every error found.
    """
    if str(plan.app) not in sys.path:
        sys.path.insert(0, str(plan.app))  # the user's plug-ins lie beside pyproject.toml
    from server_app.checks import check_arms

    checked = check_arms(plan.flat)
    problems = beyond_machine(next(iter(checked.values())).federation)
    if problems:
        raise ConfigError(problems)
    return checked


def beyond_machine(federation: FederationSettings) -> list[str]:
    """Return what one client asks for and this machine does not have: Ray would wait for it, or fail obscurely."""
    import torch

    cpus, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    problems = []
    if federation.client_cpus > cpus:
        problems.append(f"federation.client-cpus = {federation.client_cpus}: this machine has {cpus}")
    if federation.client_gpus > gpus:
        problems.append(f"federation.client-gpus = {federation.client_gpus:g}: this machine has {gpus}")
    return problems


def describe(plan: Plan, checked: dict[str, Settings]) -> str:
    """Return what would run, as text."""
    from server_app.checks import remarks

    lines = [f"app: {plan.app}", f"federation: {federation_config(next(iter(checked.values())))}"]
    lines += [f"arms: {', '.join(checked)}"] if len(checked) > 1 else []
    lines += [f"warning: {text}" for text in remarks(checked)]
    changes = tomli_w.dumps(plan.overrides()).strip()
    return "\n".join([*lines, "settings that differ from the app's defaults:", changes or "(none)"])


def federation_config(settings: Settings) -> str:
    """Return Flower's simulation settings: as many nodes as clients, and the share of the machine for each."""
    federation = settings.federation
    return (
        f"num-supernodes={federation.num_clients} "
        f"client-resources-num-cpus={federation.client_cpus or 1} "
        f"client-resources-num-gpus={float(federation.client_gpus)}"
    )


def simulate(plan: Plan, log: RunLog) -> tuple[str, str]:
    """Play the run on a SuperLink of its own and return its status in Flower's words, with details."""
    if importlib.util.find_spec("ray") is None:
        raise CommandError("a simulation needs Ray: pip install -e '.[simulation]'")
    with local_superlink(data_environment(Path.cwd())) as link:
        settings = next(iter(check_parts(plan).values()))  # while the SuperLink starts
        clients = settings.federation.num_clients
        print(f"The settings are fine. Starting {clients} simulated clients (10 to 40 s) ...", flush=True)
        link.wait_until_ready()
        try:
            return play(link, plan, settings, log)
        except StopRequested:
            print("\nStopping the run ...", flush=True)
            raise


def data_environment(cwd: Path) -> dict[str, str]:
    """Return the data root as an absolute path: Flower's processes work in another folder."""
    return {"WINNOW_DATA": str(cwd / os.environ.get("WINNOW_DATA", "data"))}


def play(link: Connection, plan: Plan, settings: Settings, log: RunLog) -> tuple[str, str]:
    """Submit the run, follow its log to the end and return its status with details."""
    overrides = link.home / "overrides.toml"
    overrides.write_text(tomli_w.dumps(plan.overrides()), encoding="utf-8")
    options = ("-c", str(overrides), "--federation-config", federation_config(settings))
    run_id = link.ask("run", str(plan.app), CONNECTION, *options)["run-id"]
    shown = 0
    while True:
        shown = follow(link, run_id, log, shown)
        record = link.ask("ls", CONNECTION, "--run-id", run_id)["runs"][0]
        if record["status"].startswith("finished"):
            return record["status"], record["status-details"]


def follow(link: Connection, run_id: str, log: RunLog, skip: int) -> int:
    """Print the log until it ends, without its first ``skip`` lines; return how many lines it had.

    Raises
    ------
    SuperLinkError
        If a process that the run needs has ended.
    """
    program = link.start("flwr", "log", run_id, CONNECTION, "--stream")
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


def close_record(log: RunLog, status: str, reason: str) -> None:
    """Say how the run ended and where its record is; complete the record where the app could not."""
    print(f"The run {'was stopped' if status == 'stopped' else 'failed:'} {reason}", file=sys.stderr)
    if log.run_directory is None:
        print("It ended before it had a run directory.", file=sys.stderr)
        return
    from server_app.report import write_report
    from server_app.run_directory import RunDirectory

    directory = RunDirectory(log.run_directory)
    unfinished = ("running", "failed") if status == "stopped" else ("running",)
    if directory.status().get("status") in unfinished:
        directory.finish(status, f"{status} {reason}" if status == "stopped" else reason)
        write_report(directory.path)
    print(f"Run directory: {directory.path}", file=sys.stderr)
    if any(directory.path.glob("checkpoints/*")):
        print(f"Continue with:  winnow run run.resume={directory.path}", file=sys.stderr)
