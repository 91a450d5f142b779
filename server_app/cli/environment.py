"""What the user's environment may change in Flower's programs and our probes, and what it may not.

What Flower's programs write is read by a program, a socket's path is short, and a proxy is for other machines,
whatever the shell or the batch system has set.
"""

import ipaddress
import os
import ssl
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from server_app.cli.config import CommandError
from server_app.cli.processes import PREFIX

if TYPE_CHECKING:
    import httpx

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
LONGEST_HOME = 30  # Ray's sockets lie below it, and a socket's path holds about 100 characters
RANDOM = 8  # characters that make a temporary folder's name its own
# They colour or wrap what a program reads, encode it in another way, end Flower at its first warning, or make it start
# an older protocol.
READER_S_TROUBLE = (
    "FORCE_COLOR",
    "CLICOLOR_FORCE",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
    "COLUMNS",
    "JUPYTER_COLUMNS",
    "PYTHONWARNINGS",
    "PYTHONINSPECT",
    "FLWR_INTERNAL_GRPC_CONTROL_API",
    "FLWR_INTERNAL_GRPC_FLEET_API",
)
SETTINGS = {
    "PYTHONUNBUFFERED": "1",  # log lines as they come
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",  # each look is a request, 6 ms of CPU for who is asked
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a client that reserves no GPU may still use one
}
FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "FLWR_DATABASE")  # would attach the run to another cluster or database
PLAIN = {"NO_COLOR": "1", "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}  # of any terminal


def environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the processes of one run: the user's, then ours, then ``extra``."""
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    own = {"FLWR_HOME": str(home), "RAY_TMPDIR": str(home), "PATH": path}
    return {**neutral(inherited), **SETTINGS, **own, **extra}


def neutral(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the user's variables without those that would change what Flower's programs write, and how it is read."""
    kept = {name: value for name, value in variables.items() if name not in READER_S_TROUBLE}
    return {**kept, **PLAIN, **no_proxy(variables)}


def no_proxy(variables: Mapping[str, str]) -> dict[str, str]:
    """Return both spellings of the hosts that are reached without a proxy: those of either, and this machine.

    >>> no_proxy({"no_proxy": "a.org, b.org", "NO_PROXY": "b.org"})["NO_PROXY"]
    'b.org,a.org,127.0.0.1,localhost,::1'
    """
    given = [variables.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    hosts = [host.strip() for text in given for host in text.split(",")]
    merged = ",".join(dict.fromkeys(filter(None, [*hosts, *LOOPBACK])))
    return {"NO_PROXY": merged, "no_proxy": merged}


def check_proxies() -> None:
    """Build a client as each of Flower's programs does, which reads the proxies of the environment.

    Raises
    ------
    CommandError
        If it cannot be built.
    """
    with _client(verify=False, trust_env=True):
        pass


@contextmanager
def probe(address: str, authority: Path | None, timeout: float = 1.0) -> "Iterator[httpx.Response]":
    """Ask for the health of the server at ``host:port`` on Flower's way: by the proxies of the environment, if any.

    This machine is always asked directly. A server with TLS has to prove by ``authority`` that it is the right one.

    Raises
    ------
    OSError
        If there is no answer, from another server, or with another status than 200; or ``authority`` is no certificate.
    CommandError
        If the proxies of the environment cannot be used.
    """
    with ask(address, authority, "/health", timeout=timeout) as reply:
        if reply.status_code != HTTPStatus.OK:
            raise ConnectionError(f"it answers {reply.status_code}")
        yield reply


@contextmanager
def ask(
    address: str,
    authority: Path | None,
    path: str,
    body: bytes | None = None,
    timeout: float = 1.0,
    headers: Mapping[str, str] | None = None,
) -> "Iterator[httpx.Response]":
    """Get ``path`` from the server at ``host:port``, or post ``body`` to it, in the way of :func:`probe`; any status.

    Raises
    ------
    OSError
        If there is no answer, or from another server; or ``authority`` is no certificate.
    CommandError
        If the proxies of the environment cannot be used.
    """
    import httpx  # slow, and Flower's own

    verify = ssl.create_default_context(cafile=str(authority)) if authority else False
    url = f"http{'s' if authority else ''}://{address}{path}"
    with _client(verify, trust_env=not is_loopback(address.rpartition(":")[0]), timeout=timeout) as client:
        try:
            method = "GET" if body is None else "POST"
            reply = client.request(method, url, content=body, headers=headers, follow_redirects=body is None)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        yield reply


def _client(verify: ssl.SSLContext | bool, trust_env: bool, timeout: float = 1.0) -> "httpx.Client":
    import httpx

    try:
        return httpx.Client(verify=verify, trust_env=trust_env, timeout=timeout)
    except (httpx.InvalidURL, ValueError, ImportError) as error:  # an ImportError: proxies by SOCKS need a package
        given = [name for name in (*PROXIES, *map(str.upper, PROXIES)) if os.environ.get(name)]
        raise CommandError(
            f"Flower cannot use the proxies of the environment ({', '.join(given)}): {error}; expected "
            "http://host:port, and in no_proxy names and addresses without '[', ']' and IPv6 networks"
        ) from error


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("fl.example.org")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def short_temporary_folder() -> Path:
    """Make a temporary folder whose path leaves room for the sockets below it.

    Raises
    ------
    CommandError
        If no such folder can be made anywhere; the message says what was tried.
    """
    tried = []
    for parent in temporary_folders():
        if len(f"{parent}/{PREFIX}") + RANDOM > LONGEST_HOME:
            tried.append(f"{parent}: too long")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            tried.append(f"{parent}: {error.strerror}")
    room = LONGEST_HOME - len(f"/{PREFIX}") - RANDOM
    raise CommandError(
        f"no place for the sockets of Flower and Ray: expected a writable folder whose path has at most {room} "
        f"characters; set TMPDIR to one (tried {'; '.join(tried)})"
    )


def temporary_folders() -> list[str]:
    """Return where a temporary folder could lie: the user's choice, the usual places on disk, those in memory."""
    try:
        chosen = [tempfile.gettempdir()]
    except FileNotFoundError:  # none can be written
        chosen = []
    found = [*chosen, "/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]
    return list(dict.fromkeys(filter(None, found)))
