"""A whole federation on this machine: SuperLink, nodes and executors as real processes, with TLS and node keys.

Each node is admitted by its key and has a folder of its own. What these processes write and keep stays in one folder;
the keys are made for this one time.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from server_app.command.environment import SuperLinkError, environment, free_port
from server_app.command.key_folder import KeyFolder
from server_app.command.processes import POLL_SECONDS
from server_app.command.superlink import CONNECTION, START_SECONDS, Connection, flower_home, trouble

HERE = "127.0.0.1"


@dataclass(frozen=True)
class LocalNode:
    """One node: its number, which is its partition-id, and the folder with its own data, if it has one."""

    number: int
    data: Path | None = None

    @property
    def name(self) -> str:
        """Its name among the keys and the log files."""
        return f"node-{self.number}"

    def config(self, state: Path) -> str:
        """Return what Flower tells the ClientApp about the node."""
        data = f" data-path='{self.data}'" if self.data else ""
        return f"partition-id={self.number} state-dir='{state}'{data}"


@contextmanager
def local_federation(folder: Path, nodes: Sequence[LocalNode], extra: Mapping[str, str]) -> Iterator[Connection]:
    """Run a SuperLink and its executor while the block runs; :func:`start_nodes` adds the nodes.

    Parameters
    ----------
    folder
        Where the processes write their logs and the nodes keep their state; it is made if it is not there.
    nodes
        The nodes for which keys are made.
    extra
        More environment variables of all processes.

    Raises
    ------
    SuperLinkError
        If Flower is not installed, or a process cannot be ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with flower_home() as (home, processes):
        keys = KeyFolder(home / "keys")
        keys.create([], [node.name for node in nodes])
        variables = environment(home, {"OMP_NUM_THREADS": str(thread_share(len(nodes))), **extra})
        link = Connection(home, f"{HERE}:{free_port()}", variables, processes, keys.authority, folder)
        link.prepare()
        _start_superlink(link, keys)
        yield link


def thread_share(nodes: int) -> int:
    """Return how many threads a node may use so that all can work at once."""
    return max(1, (os.cpu_count() or 1) // nodes)


def _start_superlink(link: Connection, keys: KeyFolder) -> None:
    secret = ("--superexec-auth-secret-file", str(keys.superlink("secret")))
    link.serve(
        "flower-superlink",
        *("--host", HERE, "--port", link.address.rpartition(":")[2], "--isolation", "process"),
        *("--database", str(link.home / "state.db"), "--enable-supernode-auth"),
        *("--ssl-ca-certfile", str(keys.authority)),
        *("--ssl-certfile", str(keys.superlink("crt")), "--ssl-keyfile", str(keys.superlink("key"))),
        *secret,
    )
    trust = ("--root-certificates", str(keys.authority))
    link.serve("flower-superexec", *trust, "--runtime-api-address", link.address, *secret)


def start_nodes(link: Connection, nodes: Sequence[LocalNode]) -> None:
    """Register the nodes' keys, start the nodes with their executors, and wait until every node is connected.

    Raises
    ------
    SuperLinkError
        If a node ends, or is not ready within a minute.
    """
    keys = KeyFolder(link.home / "keys")
    for node in nodes:
        link.ask("supernode", "register", str(keys.node(node.name, "pub")), CONNECTION, "--name", node.name)
    ports = {node: free_port() for node in nodes}
    for node, port in ports.items():
        start_node(link, keys, node, port)
    deadline = time.monotonic() + START_SECONDS
    for node, port in ports.items():
        while reason := trouble(f"{HERE}:{port}", None):
            link.check()
            if time.monotonic() > deadline:
                raise SuperLinkError(f"{node.name} is not ready: {reason}\n{link.last_lines(node.name)}")
            time.sleep(POLL_SECONDS)


def start_node(link: Connection, keys: KeyFolder, node: LocalNode, port: int) -> None:
    """Start a node and its executor, which talk to each other on ``port`` of this machine."""
    assert link.logs is not None
    state = link.logs / node.name
    state.mkdir(exist_ok=True)
    own = replace(link, environment={**link.environment, "FLWR_HOME": str(link.home / node.name)})
    secret = ("--superexec-auth-secret-file", str(keys.node(node.name, "secret")))
    own.serve(
        "flower-supernode",
        *("--superlink", link.address, "--root-certificates", str(keys.authority)),
        *("--auth-supernode-private-key", str(keys.node(node.name, "key"))),
        *("--host", HERE, "--port", str(port), "--isolation", "process"),
        *("--node-config", node.config(state), *secret),
        name=node.name,
    )
    executor = ("--insecure", "--runtime-api-address", f"{HERE}:{port}", *secret)
    own.serve("flower-superexec", *executor, name=f"{node.name}-executor")
