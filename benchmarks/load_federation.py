"""The federations of the load test: started as a deployment on one machine is, played, watched, stopped."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from benchmarks.load_echo import app_folder
from benchmarks.load_fork import PLACES, forking
from benchmarks.load_meter import Meter, Sample, light_totals, lines_of, look
from server_app.command.configuration import make_plan
from server_app.command.environment import free_port
from server_app.command.key_folder import KeyFolder
from server_app.command.local_federation import LocalNode, local_federation, start_node, start_nodes
from server_app.command.output import RunLog
from server_app.command.preparation import data_environment
from server_app.command.run import COMPLETED, submit, watch
from server_app.command.superlink import CONNECTION, Connection

APPS = {"winnow": "client_app.app:app", "echo": "benchmarks.load_echo:client"}
AT_A_TIME = 5  # real nodes that start together
LIGHT_PER_PROCESS = 250
CONNECT_SECONDS = 300.0
# One poll a second is Flower's own; winnow's 0.1 s would make 50 executors on one machine a load of their own.
POLL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"
EXTRA = {POLL: "1.0", PLACES: str(os.cpu_count())}
SMALL = ("partition.name=iid", "partition.args=", "train.epochs=1", "audit.enabled=false")  # each node has few digits
PARAMETERS_PER_MEGABYTE = 250_000
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """One federation; ``megabytes`` is the size of the model of app ``echo``, ``words`` are settings of ``winnow``."""

    app: str
    kind: str
    nodes: int
    megabytes: float
    rounds: int
    idle: float
    timeout: float
    words: tuple[str, ...] = ()


class LoadError(RuntimeError):
    """The federation did not come up, or the run failed; the message holds what the processes wrote."""


def play(case: Case, folder: Path) -> tuple[list[dict[str, Any]], Meter, Meter]:
    """Play a case in a new folder; return the line of each round, and what was seen before and during the run.

    Raises
    ------
    LoadError
        If the nodes do not connect, or the run does not complete.
    """
    nodes = [LocalNode(number) for number in range(case.nodes)]
    with local_federation(folder, nodes, data_environment(Path.cwd()) | EXTRA) as link:
        link.wait_until_ready()
        logs = KINDS[case.kind](link, case, nodes)

        def glance() -> Sample:
            return look(link.processes.members(), link.home / "state.db", logs)

        with Meter(glance, lambda: 0) as before:
            time.sleep(case.idle)
        run_id, rounds = submit_winnow(link, case) if case.app == "winnow" else submit_echo(link, case)
        with Meter(glance, lambda: len(rounds()) + (case.app == "echo")) as during:
            status, details = watch(link, run_id, RunLog(out=sys.stderr))
        if status != COMPLETED:
            raise LoadError(f"{status}: {details}\n{link.last_lines('flower-superlink')}")
        return rounds(), before, during


def start_processes(link: Connection, _: Case, nodes: list[LocalNode]) -> list[Path]:
    """Start SuperNodes with their executors, a few at a time; they have no logs of totals."""
    for first in range(0, len(nodes), AT_A_TIME):
        start_nodes(link, nodes[first : first + AT_A_TIME])
    return []


def start_forked(link: Connection, _: Case, nodes: list[LocalNode]) -> list[Path]:
    """Start SuperNodes with their executors from one process that has imported what they need."""
    keys = KeyFolder(link.home / "keys")
    forker = forking(replace(link, environment={**link.environment, POLL: "0.01"}))  # the pause is in taking turns
    register(link.address, keys)
    for node in nodes:
        start_node(forker, keys, node, free_port())
    return []


def start_light(link: Connection, case: Case, _: list[LocalNode]) -> list[Path]:
    """Admit the nodes' keys, start the processes that speak for the nodes, wait for all, and return their logs.

    Raises
    ------
    LoadError
        If they are not within five minutes.
    """
    keys = KeyFolder(link.home / "keys")
    register(link.address, keys)
    logs = []
    for first in range(0, case.nodes, LIGHT_PER_PROCESS):
        count, log = min(LIGHT_PER_PROCESS, case.nodes - first), link.home / f"light-{first}.jsonl"
        words = {"superlink": link.address, "keys": keys.path, "first": first, "count": count, "log": log}
        options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
        program = [sys.executable, "-m", "benchmarks.load_nodes", "--app", APPS[case.app], *options]
        with link.log_file(f"light-{first}").open("w") as output:
            link.processes.start(program, link.environment, ROOT, output)
        logs.append(log)
    deadline = time.monotonic() + CONNECT_SECONDS
    while light_totals(logs)["nodes"] < case.nodes:
        link.check()
        if time.monotonic() > deadline:
            raise LoadError(
                f"{light_totals(logs)['nodes']} of {case.nodes} are connected\n{link.last_lines('light-0')}"
            )
        time.sleep(1.0)
    return logs


KINDS = {"process": start_processes, "forked": start_forked, "light": start_light}


def register(address: str, keys: KeyFolder) -> None:
    """Admit all nodes, as ``flwr supernode register`` does one in a process of its own."""
    client = ControlHttpClient.from_server_address(address, False, keys.authority.read_bytes(), [])
    for name in keys.names():
        key = load_ssh_public_key(keys.node(name, "pub").read_bytes())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        client.RegisterNode(RegisterNodeRequest(public_key=public_key_to_bytes(key), name=name))
    client.close()


def submit_winnow(link: Connection, case: Case) -> tuple[str, Callable[[], list[dict[str, Any]]]]:
    """Submit Winnow's app; return the run's id and what reads its rounds, the first of which is round 0."""
    runs = link.home / "runs"
    own = [f"federation.num-clients={case.nodes}", f"num-server-rounds={case.rounds}", f"run.output-dir={runs}"]
    limits = [f"federation.round-timeout={case.timeout}", f"federation.wait-for-clients={CONNECT_SECONDS}"]
    plan = make_plan([*SMALL, *own, *limits, *case.words], str(ROOT), ROOT)
    return submit(link, plan), lambda: [line for file in runs.glob("*/metrics.jsonl") for line in lines_of(file)]


def submit_echo(link: Connection, case: Case) -> tuple[str, Callable[[], list[dict[str, Any]]]]:
    """Submit the app that trains nothing; return the run's id and what reads its rounds."""
    output, settings = link.home / "rounds.jsonl", link.home / "echo.toml"
    values = {"nodes": case.nodes, "rounds": case.rounds, "timeout": case.timeout, "output": str(output)}
    values["parameters"] = max(1, round(case.megabytes * PARAMETERS_PER_MEGABYTE))
    settings.write_text(tomli_w.dumps(values))
    app = app_folder(link.home / "app")
    return str(link.ask("run", str(app), CONNECTION, "-c", str(settings))["run-id"]), lambda: lines_of(output)
