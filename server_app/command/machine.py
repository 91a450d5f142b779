"""What ``winnow doctor`` checks of the machine: devices, memory, disk, ports and data."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tasks.issues import ERROR, INFO, WARNING, Issue

GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")
DEPLOYMENT_PORTS = {8000: "SuperLink", 9094: "SuperNode"}


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
    for folder in dict.fromkeys((Path.cwd(), Path(tempfile.gettempdir()))):
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


def data() -> Iterator[Issue]:
    """Ask every built-in task whether its data is there."""
    given = os.environ.get("WINNOW_DATA")
    if given is not None and not Path(given).is_dir():
        yield Issue(WARNING, "data", f"WINNOW_DATA = {given}: no such folder", "set it to the folder with the data")
    try:
        from tasks.base import DataError
        from tasks.registry import TASKS
        from tasks.settings import TaskSettings
        from tasks.shares import load_task
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
