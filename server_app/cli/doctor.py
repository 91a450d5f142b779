"""Doctor command, ``winnow doctor``: does this machine have what a run needs, and what to do where it does not.

Python and packages are checked in :mod:`server_app.cli.packages`; here devices, memory, disk, ports and data, and
whether a node on this machine can connect to its SuperLink (``winnow doctor --superlink``, which a site runs).
"""

import argparse
import os
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import chain
from pathlib import Path

from server_app.cli import packages, processes
from server_app.cli.config import ADDRESS, CommandError, path_argument
from server_app.cli.environment import probe, short_temporary_folder, temporary_folders
from server_app.cli.garbage import no_collections
from server_app.cli.keys import FOLDER
from tasks.files import user_path
from tasks.issues import ERROR, INFO, WARNING, Issue
from tasks.setting_values import path_problem

GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")
DEPLOYMENT_PORTS = {8000: "SuperLink", 9094: "SuperNode"}
AHEAD, BEHIND = 5, 305
"""Seconds by which a node's clock may be wrong: it signs the time, and Flower's SuperLink takes no other signature."""
MARKS = {INFO: "OK", WARNING: "WARN", ERROR: "FAIL"}


def devices() -> Iterator[Issue]:
    """Name the devices that can train."""
    yield Issue(INFO, "cpu", f"{os.cpu_count()} cores")
    try:
        import torch
    except Exception:  # reported by packages.torch_works
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Issue(INFO, f"cuda:{index}", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Issue(INFO, "mps", "Apple GPU")


def memory() -> Iterator[Issue]:
    """Check main memory, and the shared memory in which Ray keeps the messages."""
    if "SC_PHYS_PAGES" in os.sysconf_names:
        yield enough(
            "memory",
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            (2, 6),
            "set federation.client-cpus higher: fewer clients run at once",
        )
    if SHARED_MEMORY.is_dir():
        remedy = "give it more, in Docker with --shm-size=2g; Ray works on disk otherwise, which is slow"
        yield enough(f"shared memory ({SHARED_MEMORY})", shutil.disk_usage(SHARED_MEMORY).free, (0, 1), remedy)


def disk() -> Iterator[Issue]:
    """Check the free space where runs are recorded and where Flower and Ray work."""
    folders = [Path.cwd()]
    try:
        home = short_temporary_folder()
        home.rmdir()
        folders.append(home.parent)
    except CommandError as error:
        yield Issue(ERROR, "temporary folder", str(error), "set TMPDIR to a short one that you can write")
    for folder in dict.fromkeys(folders):
        yield enough(f"free disk ({folder})", shutil.disk_usage(folder).free, (0.2, 2), "free some space there")


def enough(subject: str, size: float, limits: tuple[float, float], remedy: str) -> Issue:
    """Judge a size in bytes: ERROR below the first limit (GiB), WARNING below the second."""
    least, good = limits
    level = ERROR if size < least * GIB else WARNING if size < good * GIB else INFO
    text = f"{size / GIB:.1f} GiB"
    return Issue(level, subject, text) if level == INFO else Issue(level, subject, f"{text}, expected {good:g}", remedy)


def ports() -> Iterator[Issue]:
    """Check that servers can listen on this machine: on any port for a simulation, on known ones for a deployment."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        yield Issue(ERROR, "ports", f"cannot listen on 127.0.0.1: {error}", "allow local connections")
        return
    busy = [port for port in DEPLOYMENT_PORTS if _answers(port)]
    for port in busy:
        remedy = f"fine for winnow run; to deploy here, give the {DEPLOYMENT_PORTS[port]} another --port"
        yield Issue(WARNING, f"port {port}", "in use", remedy)
    if not busy:
        yield Issue(INFO, "ports", f"{' and '.join(map(str, DEPLOYMENT_PORTS))} free on 127.0.0.1")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def leftovers() -> Iterator[Issue]:
    """Name what commands that were killed have left: their folders, and the processes that still run."""
    for home, pids in processes.leftovers(temporary_folders()).items():
        living = f"; still running: {', '.join(map(str, pids))}" if pids else ""
        remedy = f"{f'kill {shlex.join(map(str, pids))}; ' if pids else ''}rm -r {shlex.quote(str(home))}"
        yield Issue(WARNING, f"left over ({home})", f"of a winnow command that was killed{living}", remedy)


def data() -> Iterator[Issue]:
    """Ask every built-in task whether its data is there."""
    given = os.environ.get("WINNOW_DATA")
    if given is not None and (problem := path_problem(given)):
        yield Issue(ERROR, "data", f"WINNOW_DATA = {given!r}: {problem}", "set it to the folder with the data")
        return
    if given is not None and not Path(user_path(given)).is_dir():
        yield Issue(WARNING, "data", f"WINNOW_DATA = {given}: no such folder", "set it to the folder with the data")
    try:
        from tasks.base import DataError
        from tasks.client_data import load_task
        from tasks.registry import TASKS
        from tasks.settings import TaskSettings
    except Exception:  # reported by packages.torch_works
        return
    for entry in TASKS.entries():
        if getattr(entry.factory, "brings_own_data", False):
            continue  # where each site's own files are is not known here
        try:
            load_task(TaskSettings(name=entry.name)).check()
            yield Issue(INFO, f"data of {entry.name}", "there")
        except DataError as error:
            yield Issue(WARNING, f"data of {entry.name}", "not there", str(error))


def superlink(address: str, authority: Path) -> Iterator[Issue]:
    """Check that the SuperLink at ``host:port`` answers, proves by ``authority`` to be the right one, and has our time.

    Parameters
    ----------
    address
        Host and port.
    authority
        The federation's certificate.
    """
    subject = f"SuperLink {address}"
    if not os.path.isfile(authority):
        yield Issue(ERROR, subject, f"no certificate {authority}", "name the federation's ca.crt, --root-certificates")
        return
    try:
        ahead = seconds_ahead(address, authority)
    except (OSError, ValueError) as error:
        yield Issue(ERROR, subject, str(error), "compare address and ca.crt with the coordinator's, and the firewall")
        return
    yield Issue(INFO, subject, "answers and proves to be the right one")
    yield clock(ahead)


def seconds_ahead(address: str, authority: Path) -> float:
    """Return by how many seconds this machine's clock is ahead of the SuperLink's, exact to about a second.

    Raises
    ------
    OSError
        If there is no connection, or another server's certificate.
    ValueError
        If the answer names no time.
    """
    with probe(address, authority, timeout=10.0) as reply:
        stated = reply.headers.get("Date", "")
    return time.time() - 0.5 - parsedate_to_datetime(stated).timestamp()  # it is rounded down to the second


def clock(ahead: float) -> Issue:
    """Judge a clock that is ``ahead`` seconds ahead of the SuperLink's."""
    text = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the SuperLink's"
    remedy = f"let both machines keep time by NTP: a node {AHEAD} s ahead or {BEHIND} s behind is refused"
    if not -BEHIND < ahead < AHEAD:
        return Issue(ERROR, "clock", text, remedy)
    return Issue(WARNING, "clock", text, remedy) if abs(ahead) > AHEAD / 2 else Issue(INFO, "clock", text)


CHECKS: tuple[Callable[[], Iterator[Issue]], ...] = (
    packages.python,
    packages.requirements,
    packages.torch_works,
    packages.flower_programs,
    devices,
    memory,
    disk,
    ports,
    leftovers,
    data,
)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Check Python, packages, devices, disk, ports and data; exit with 1 if something needed is broken."
    parser = commands.add_parser(
        "doctor", help="check this machine", description=text, epilog="example:  winnow doctor"
    )
    parser.add_argument("--superlink", **ADDRESS, help="also check that a node here can connect to it")
    parser.add_argument(
        "--root-certificates", default=FOLDER / "ca.crt", type=path_argument, metavar="FILE", help="of that one"
    )
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Print every issue as soon as it is known."""
    failed = False
    checks = [*CHECKS]
    if args.superlink:
        checks.append(partial(superlink, args.superlink, args.root_certificates))
    with no_collections():
        for issue in chain.from_iterable(check() for check in checks):
            print(shown(issue), flush=True)
            failed |= issue.level == ERROR
    print("Something needed is broken: see FAIL above." if failed else "Nothing needed is broken.")
    return int(failed)


def shown(issue: Issue) -> str:
    """Return an issue as printed: level, subject and text, and below it what to do."""
    assert bool(issue.remedy) == (issue.level != INFO), "a problem names its remedy, and only a problem does"
    remedy = f"\n{'':5}-> {issue.remedy}" if issue.remedy else ""
    return f"{MARKS[issue.level]:<5}{issue.key}: {issue.text}{remedy}"
