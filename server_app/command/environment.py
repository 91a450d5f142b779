"""Where Flower's processes of one run live: their programs, folder, port and environment variables."""

import os
import socket
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

LONGEST_HOME = 30  # Ray's sockets lie below it, and a socket's path holds about 100 characters
SETTINGS = {
    "PYTHONUNBUFFERED": "1",  # log lines as they come
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a client that reserves no GPU may still use one
}
FOREIGN = ("RAY_ADDRESS", "FLWR_DATABASE")  # would attach the run to another cluster or database


class SuperLinkError(RuntimeError):
    """Flower's own processes do not work; the message holds what they wrote."""


def program_path(name: str) -> str:
    """Return the path of a Flower program of this installation.

    Raises
    ------
    SuperLinkError
        If it is not there.
    """
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise SuperLinkError(f"{path} is missing: reinstall with  pip install -e '.[simulation]'")
    return str(path)


def free_port() -> int:
    """Return a loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def short_temporary_folder() -> Path:
    """Make a temporary folder whose path leaves room for the sockets below it."""
    home = Path(tempfile.mkdtemp(prefix="winnow-"))
    if len(str(home)) > LONGEST_HOME:
        home.rmdir()
        home = Path(tempfile.mkdtemp(prefix="winnow-", dir="/tmp"))
    return home


def environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the processes of one run: the user's, then ours, then ``extra``."""
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))
    own = {"FLWR_HOME": str(home), "RAY_TMPDIR": str(home), "PATH": path, "NO_PROXY": direct, "no_proxy": direct}
    return {**inherited, **SETTINGS, **own, **extra}
