"""Federation command, ``winnow federation``: a run with real nodes, here or through a SuperLink that is already there.

A federation on this machine is a SuperLink, nodes and executors as real processes, with TLS and node keys. Each node is
admitted by its key and has a folder of its own. What these processes write and keep stays in one folder; the keys are
made for this one time.
"""

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from server_app.cli.access import TOKEN, secret_file, trouble
from server_app.cli.audit import audit_lines, audits
from server_app.cli.config import ADDRESS, APP, CommandError, RunPlan, make_plan, path_argument, quoted
from server_app.cli.environment import environment
from server_app.cli.keys import FOLDER, KeyFolder
from server_app.cli.processes import POLL_SECONDS, StopRequested, stop_requests
from server_app.cli.run import (
    COMPLETED,
    STOPPED,
    check_parts,
    close_record,
    data_environment,
    exit_code,
    run_environment,
    submit,
    watch,
)
from server_app.cli.run_log import RunLog
from server_app.cli.superlink import (
    CONNECTION,
    START_SECONDS,
    Connection,
    RemoteConnection,
    SuperLinkError,
    flower_home,
    free_port,
    proofs,
    remote_superlink,
    start_servers,
)
from server_app.output import OutputLostError
from tasks.files import write_problem
from tasks.protocol import Mode

HERE = "127.0.0.1"
MOST_NODES = 1000  # of one machine: each is two processes
EXAMPLE = "example:  winnow federation run --nodes 3 num-server-rounds=5"


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
        """Return what Flower tells the ClientApp about the node; whoever starts all nodes shares their results."""
        data = f" data-path={quoted(self.data)}" if self.data else ""
        return f"partition-id={self.number} state-dir={quoted(state)}{data} share-results=true"


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
        token = secret_file(home / TOKEN)
        link = Connection(home, f"{HERE}:{free_port()}", variables, processes, keys.authority, folder, token)
        start_servers(link, keys, "--enable-supernode-auth", "--database", str(home / "state.db"))
        yield link


def thread_share(nodes: int) -> int:
    """Return how many threads a node may use so that all can work at once."""
    return max(1, (os.cpu_count() or 1) // nodes)


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
        while reason := trouble(f"{HERE}:{port}", keys.authority):
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
    trust = ("--root-certificates", str(keys.authority))
    own.serve(
        "flower-supernode",
        *("--superlink", link.address, *trust, *proofs(keys)),
        *("--auth-supernode-private-key", str(keys.node(node.name, "key"))),
        *("--host", HERE, "--port", str(port), "--isolation", "process"),
        *("--node-config", node.config(state), *secret),
        name=node.name,
    )
    executor = ("--runtime-api-address", f"{HERE}:{port}", *trust, *secret)
    own.serve("flower-superexec", *executor, name=f"{node.name}-executor")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Run with real nodes. The default SuperLink is $WINNOW_SUPERLINK, its authority $WINNOW_ROOT_CERTIFICATES."
    parser = commands.add_parser("federation", help="runs with real nodes", description=text, epilog=EXAMPLE)
    actions = parser.add_subparsers(dest="what", required=True, metavar="action")
    local = actions.add_parser("run", help="start SuperLink and nodes here, do one run, stop them all")
    local.add_argument("--nodes", type=int, default=3, metavar="N", help="number of nodes (default: 3)")
    local.add_argument(
        "--data", action="append", default=[], type=path_argument, metavar="DIR", help="data of the next node"
    )
    local.add_argument(
        "--folder", type=path_argument, metavar="DIR", help="for logs and state (default: federation/<time>)"
    )
    local.set_defaults(action=run_here)
    send = actions.add_parser("submit", help="submit a run to a SuperLink and follow it")
    send.set_defaults(action=submit_run)
    for each in (local, send):
        each.add_argument("words", nargs="*", metavar="recipe | key=value", help="as for winnow run")
        each.add_argument("--app", **APP)
    look = actions.add_parser("follow", help="follow a run to its end")
    look.add_argument("run_id", help="the number that submit has printed")
    look.set_defaults(action=follow_run)
    admit = actions.add_parser("register", help="admit nodes by their public keys; known ones are left alone")
    admit.add_argument(
        "keys", nargs="+", type=path_argument, metavar="FILE.pub", help="public key; its name becomes the node's"
    )
    admit.set_defaults(action=register)
    plain = actions.add_parser("flwr", help="any command of flwr, e.g. supernode list, stop RUN_ID")
    plain.add_argument("arguments", nargs=argparse.REMAINDER, help="without the name of a connection")
    plain.set_defaults(action=flwr)
    for each in (local, send, look):
        each.add_argument("--verbose", action="store_true", help="show Flower's own messages too")
    for each in (send, look, admit, plain):
        _add_connection(each)


def _add_connection(parser: argparse.ArgumentParser) -> None:
    address = os.environ.get("WINNOW_SUPERLINK", "127.0.0.1:8000")
    authority = os.environ.get("WINNOW_ROOT_CERTIFICATES", FOLDER / "ca.crt")
    parser.add_argument("--superlink", default=address, **ADDRESS, help=f"default: {address}")
    parser.add_argument(
        "--root-certificates", default=authority, type=path_argument, metavar="FILE", help=f"({authority})"
    )


def run_here(args: argparse.Namespace) -> int:
    """Do a run on a federation of local processes; exit codes as for ``winnow run``."""
    nodes = local_nodes(args.nodes, args.data)
    plan = make_plan([*args.words, f"federation.num-clients={args.nodes}"], args.app, Path.cwd())
    check_for_nodes(plan)
    folder = (args.folder or Path("federation") / f"{datetime.now():%Y%m%d-%H%M%S}").absolute()
    if problem := write_problem(folder):
        raise CommandError(f"--folder {folder}: logs and state cannot be written there: {problem}")
    data = [word for path in args.data for word in ("--data", str(path))]
    again = ["winnow", "federation", "run", "--nodes", str(args.nodes), "--folder", str(folder), *data]
    return exit_code(lambda log: run_with_nodes(plan, nodes, folder, log), RunLog(args.verbose), shlex.join(again))


def local_nodes(count: int, data: Sequence[Path]) -> list[LocalNode]:
    """Return the nodes 0 to ``count`` - 1; the first ones get the data folders.

    Raises
    ------
    CommandError
        If there is no node or too many, a folder is missing, or there are more folders than nodes.
    """
    if not 1 <= count <= MOST_NODES or len(data) > count:
        limits = f"at least 1, at most {MOST_NODES}"
        raise CommandError(f"--nodes {count}: expected {limits}, and one for each of {len(data)} data folders")
    absent = [str(folder) for folder in data if not os.path.isdir(folder)]
    if absent:
        raise CommandError(f"--data: no such folder: {', '.join(absent)}")
    folders = [*(folder.absolute() for folder in data), *[None] * (count - len(data))]
    return [LocalNode(number, folder) for number, folder in enumerate(folders)]


def check_for_nodes(plan: RunPlan) -> None:
    """Raise CommandError if the settings want hostile clients, which real nodes refuse, or there is no app to send."""
    from client_app.attacks import NO_ATTACK  # slow to import

    plan.sent()
    if plan.flat.get("attack.name", NO_ATTACK) != NO_ATTACK:
        raise CommandError("attack.name: attacks are made in a simulation only (winnow run); real nodes refuse them")


def run_with_nodes(plan: RunPlan, nodes: Sequence[LocalNode], folder: Path, log: RunLog) -> tuple[str, str]:
    """Start everything, do the run and return its status in Flower's words, with details."""
    data = [word for node in nodes if node.data for word in ("--data", str(node.data))]
    command = ("winnow", "federation", "run", "--nodes", str(len(nodes)), *data)
    variables = run_environment(plan, Mode.DEPLOYMENT, node_data(plan, Path.cwd()), *command)
    before = audits(folder)
    with local_federation(folder, nodes, variables) as link:
        check_parts(plan, Mode.DEPLOYMENT, recorded_here=True)  # while the SuperLink starts
        print(f"The settings are fine. Starting {len(nodes)} nodes; logs and state: {folder}", flush=True)
        link.wait_until_ready()
        start_nodes(link, nodes)
        print(f"All {len(nodes)} nodes are connected. Sending them the run ...", flush=True)
        try:
            ended = watch(link, submit(link, plan), log)
        except StopRequested:
            print("\nStopping the federation ...", flush=True)
            raise
    print(audit_lines([found for found in audits(folder) if found not in before]), end="", flush=True)
    return ended


def node_data(plan: RunPlan, cwd: Path) -> dict[str, str]:
    """Return the data root of the nodes: the folder that the settings name, else the one of ``winnow run``.

    Nodes read nowhere else unless they have a folder of their own.
    """
    named = plan.flat.get("task.data-path")
    return {"WINNOW_DATA": str(named)} if named else data_environment(cwd)


def submit_run(args: argparse.Namespace) -> int:
    """Submit a run and follow it; 0 only if it completed."""
    plan = make_plan(args.words, args.app, Path.cwd())
    check_for_nodes(plan)
    check_parts(plan, Mode.DEPLOYMENT)
    with _connection(args) as link:
        run_id = submit(link, plan)
        return _follow(link, run_id, args.verbose, f"Run {run_id} is submitted.")


def follow_run(args: argparse.Namespace) -> int:
    """Follow a run that was submitted before; 0 only if it completed."""
    with _connection(args) as link:
        return _follow(link, args.run_id, args.verbose)


def _follow(link: RemoteConnection, run_id: str, verbose: bool, first: str = "") -> int:
    log = RunLog(verbose)
    again, end = typed("follow", run_id), typed("flwr", "stop", run_id)
    try:
        with stop_requests():
            print(first, end="\n" if first else "", flush=True)
            status, details = watch(link, run_id, log)
    except (StopRequested, OutputLostError) as stop:
        print(f"\nThe run goes on. Follow it:  {again}\nStop it:  {end}", file=sys.stderr)
        if isinstance(stop, OutputLostError):
            raise
        return 128 + signal.Signals(stop.signum)
    except SuperLinkError as error:
        print(f"{error}\nThe run may still go on. When the SuperLink is back, follow it:  {again}", file=sys.stderr)
        return 1
    if status == COMPLETED:
        return 0
    if status == STOPPED:
        close_record(log, "stopped", "by flwr stop", typed("submit"))
    else:
        close_record(log, "failed", details, typed("submit"))
    return 1


def typed(*words: str) -> str:
    """Return what the operator types for an action; in a container that is not the program that runs there.

    >>> typed("follow", "17")
    'winnow federation follow 17'
    """
    return " ".join([os.environ.get("WINNOW_COMMAND", "winnow federation"), *words])


def register(args: argparse.Namespace) -> int:
    """Admit the nodes and print a line for each."""
    if absent := [str(file) for file in args.keys if not os.path.isfile(file)]:
        raise CommandError(f"no such public key: {', '.join(absent)}")
    with _connection(args) as link:
        for file in args.keys:
            node = link.register(file.absolute())
            print(f"{file.stem}: registered as node {node}" if node else f"{file.stem}: already registered", flush=True)
    return 0


def flwr(args: argparse.Namespace) -> int:
    """Run a command of Flower against the SuperLink and return its exit code."""
    with _connection(args) as link:
        program = link.start("flwr", *args.arguments)
        print(program.communicate()[0], end="")
        return program.returncode


def _connection(args: argparse.Namespace) -> AbstractContextManager[RemoteConnection]:
    return remote_superlink(args.superlink, args.root_certificates)
