"""``winnow doctor``: does this machine have what a run needs, and what to do where it does not."""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from server_app.command import machine, packages, site
from server_app.command.keys import FOLDER
from tasks.issues import ERROR, INFO, WARNING, Issue

MARKS = {INFO: "OK", WARNING: "WARN", ERROR: "FAIL"}

CHECKS: tuple[Callable[[], Iterator[Issue]], ...] = (
    packages.python,
    packages.requirements,
    packages.torch_works,
    packages.flower_programs,
    machine.devices,
    machine.memory,
    machine.disk,
    machine.ports,
    machine.data,
)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Check Python, packages, devices, disk, ports and data; exit with 1 if something needed is broken."
    parser = commands.add_parser(
        "doctor", help="check this machine", description=text, epilog="example:  winnow doctor"
    )
    parser.add_argument("--superlink", metavar="HOST:PORT", help="also check that a node here can connect to it")
    parser.add_argument("--root-certificates", default=FOLDER / "ca.crt", type=Path, metavar="FILE", help="of that one")
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Print every finding as soon as it is known."""
    failed = False
    checks = [*CHECKS]
    if args.superlink:
        checks.append(partial(site.superlink, args.superlink, args.root_certificates))
    for check in checks:
        for finding in check():
            print(shown(finding), flush=True)
            failed |= finding.level == ERROR
    print("Something needed is broken: see FAIL above." if failed else "Nothing needed is broken.")
    return int(failed)


def shown(finding: Issue) -> str:
    """Return a finding as printed: level, subject and text, and below it what to do."""
    assert bool(finding.remedy) == (finding.level != INFO), "a problem names its remedy, and only a problem does"
    remedy = f"\n{'':5}-> {finding.remedy}" if finding.remedy else ""
    return f"{MARKS[finding.level]:<5}{finding.key}: {finding.text}{remedy}"
