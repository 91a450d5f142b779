"""Load test: a federation with TLS and node keys, more and more nodes, and what each round costs whom (Linux).

    python -m benchmarks.load --nodes 50 200 --rounds 3 model.name=mlp

SuperLink, its database, the ServerApp and its executor are the processes of a deployment. The nodes are real for them:
Flower's own connection with a key for each, the same requests in the same order, a poll every three seconds. But
hundreds of them share a process, and the ClientApp is called in it, one message at a time, instead of in a new process
for each. Every round is a row of the CSV file and of the table.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context, Message, RecordDict
from flwr.common.config import get_fused_config_from_fab
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_connection import http_request_response

from server_app.cli.config import make_plan, path_argument
from server_app.cli.federation import LocalNode, local_federation
from server_app.cli.keys import KeyFolder
from server_app.cli.processes import StopRequested, stop_requests
from server_app.cli.run import COMPLETED, data_environment, submit, watch
from server_app.cli.run_log import RunLog
from server_app.cli.superlink import Connection, SuperLinkError

ROOT = Path(__file__).resolve().parents[1]
PROC = Path("/proc")
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
MB = 1e6
KINDS = {"flower-superlink": "superlink", "flwr-serverapp": "serverapp"}  # by a word of the command line
NODES_PER_PROCESS = 250
IDLE_SECONDS = 3.0  # as flwr.supernode.start_client_internal, which has it as a plain number
CONNECT_SECONDS = 300.0
SMALL = ("partition.name=iid", "partition.args=", "train.epochs=1", "audit.enabled=false")  # each node has few digits


@dataclass(frozen=True)
class Row:
    """One round: seconds, replies, CPU seconds, largest MB of memory (RSS); ``load`` is the machine's load average."""

    nodes: int
    round: int
    load: float
    seconds: float
    replies: int
    superlink_cpu: float
    serverapp_cpu: float
    superlink_mb: float
    serverapp_mb: float
    database_mb: float


@dataclass
class Sample:
    """One look: CPU seconds so far and resident bytes by kind of process, and the bytes of the database."""

    cpu: Counter[str] = field(default_factory=Counter)
    rss: Counter[str] = field(default_factory=Counter)
    database: int = 0


def look(pids: Iterable[int], database: Path) -> Sample:
    """Read all processes; those that end meanwhile are left out."""
    files = (database.with_name(database.name + suffix) for suffix in ("", "-wal"))
    sample = Sample(database=sum(file.stat().st_size for file in files if file.exists()))
    for pid in pids:
        folder = PROC / str(pid)
        try:
            kind = kind_of((folder / "cmdline").read_text())
            ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
            rss = int((folder / "statm").read_text().split()[1]) * PAGE
        except OSError:
            continue
        sample.rss[kind] += rss
        sample.cpu[kind] += sum(map(int, ticks)) / TICKS  # type: ignore[assignment]
    return sample


def kind_of(command: str) -> str:
    """Return what a process is from its command line.

    >>> kind_of("python /venv/bin/flower-superlink --host")
    'superlink'
    """
    return next((kind for word, kind in KINDS.items() if word in command), "other")


@contextmanager
def watched(
    look: Callable[[], Sample], current: Callable[[], int], pause: float = 1.0
) -> Iterator[dict[int, list[Sample]]]:
    """Take a look every ``pause`` seconds while the block runs; yields the looks of each round, by its number."""
    rounds: dict[int, list[Sample]] = {}
    end = threading.Event()

    def keep() -> None:
        rounds.setdefault(current(), []).append(look())

    def watch_all() -> None:
        while not end.wait(pause):
            keep()

    keep()
    thread = threading.Thread(target=watch_all, daemon=True)
    thread.start()
    try:
        yield rounds
    finally:
        end.set()
        thread.join()
        keep()


def row(nodes: int, line: dict[str, Any], rounds: dict[int, list[Sample]]) -> Row:
    """Return the row of a round from the line of metrics.jsonl and what was seen meanwhile.

    The first look after a round ends its CPU time.
    """
    after = [samples[0] for number, samples in sorted(rounds.items()) if number > line["round"]][:1]
    samples = rounds.get(line["round"], []) + after
    cpu = {kind: spent(samples, kind) for kind in KINDS.values()}
    peak = {kind: max((sample.rss[kind] for sample in samples), default=0) / MB for kind in KINDS.values()}
    database = max((sample.database for sample in samples), default=0) / MB
    return Row(
        nodes=nodes,
        round=line["round"],
        load=round(os.getloadavg()[0], 1),
        seconds=line["seconds"],
        replies=line["replies"],
        superlink_cpu=cpu["superlink"],
        serverapp_cpu=cpu["serverapp"],
        superlink_mb=peak["superlink"],
        serverapp_mb=peak["serverapp"],
        database_mb=database,
    )


def spent(samples: Iterable[Sample], kind: str) -> float:
    """Return the CPU seconds between the first and the last look at a kind of process."""
    seconds = [sample.cpu[kind] for sample in samples if kind in sample.cpu]
    return seconds[-1] - seconds[0] if seconds else 0.0


def play(nodes: int, rounds: int, timeout: float, words: Iterable[str], folder: Path) -> list[Row]:
    """Play a run with so many nodes and return its rows; ``folder`` is new.

    Raises
    ------
    SuperLinkError
        If the run does not complete; the message holds what the SuperLink wrote.
    """
    with local_federation(folder, [LocalNode(number) for number in range(nodes)], data_environment(Path.cwd())) as link:
        link.wait_until_ready()
        start_light(link, nodes)
        runs = link.home / "runs"
        own = [f"federation.num-clients={nodes}", f"num-server-rounds={rounds}", f"run.output-dir={runs}"]
        limits = [f"federation.round-timeout={timeout}", f"federation.wait-for-clients={CONNECT_SECONDS}"]
        run_id = submit(link, make_plan([*SMALL, *own, *limits, *words], str(ROOT), ROOT))

        def lines() -> list[dict[str, Any]]:
            text = "".join(file.read_text() for file in runs.glob("*/metrics.jsonl"))
            return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

        with watched(lambda: look(link.processes.members(), link.home / "state.db"), lambda: len(lines())) as seen:
            status, details = watch(link, run_id, RunLog(out=sys.stderr))
        if status != COMPLETED:
            raise SuperLinkError(f"{status}: {details}\n{link.last_lines('flower-superlink')}")
        return [row(nodes, line, seen) for line in lines() if line["round"]]


def start_light(link: Connection, nodes: int) -> None:
    """Admit the nodes' keys and start the processes that speak for the nodes."""
    keys = KeyFolder(link.home / "keys")
    operator = Bearer(Path(str(link.token)).read_text())
    client = ControlHttpClient.from_server_address(link.address, False, keys.authority.read_bytes(), [operator])
    for name in keys.names():
        public = public_key_to_bytes(private_key(keys, name).public_key())
        client.RegisterNode(RegisterNodeRequest(public_key=public, name=name))
    client.close()
    for first in range(0, nodes, NODES_PER_PROCESS):
        command = [sys.executable, "-m", "benchmarks.load", "--superlink", link.address, "--keys", str(keys.path)]
        command += ["--be", str(first), str(min(nodes, first + NODES_PER_PROCESS))]
        with link.log_file(f"light-{first}").open("w") as output:
            link.processes.start(command, link.environment, ROOT, output)


@dataclass(frozen=True)
class Bearer:
    """Adds the SuperLink's token to what is asked of it."""

    token: str

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Pass a request on."""
        context.request.headers["authorization"] = f"Bearer {self.token}"
        return call_next(context)


def private_key(keys: KeyFolder, name: str) -> ec.EllipticCurvePrivateKey:
    """Return the key of a node."""
    key = load_ssh_private_key(keys.node(name, "key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


class LightNode:
    """One node. ``run`` does what a SuperNode does, until the process ends."""

    one_at_a_time = threading.Lock()  # Flower keeps a task's identity in the class TaskIdentity, once per process

    def __init__(self, node: LocalNode, keys: KeyFolder, address: str) -> None:
        key = private_key(keys, node.name)
        self._node, self._address = node, address
        self._keys, self._authority = (key, key.public_key()), keys.authority.read_bytes()
        self._contexts: dict[int, Context] = {}

    def run(self) -> None:
        """Connect, and answer messages."""
        with http_request_response(self._address, False, self._authority, self._keys) as connection:
            self._node_id, receive, self._send, self._run_of, self._fab, self._pull, self._push, self._confirm = (
                connection
            )
            while True:
                received = receive()
                if received is None:
                    time.sleep(IDLE_SECONDS)
                    continue
                try:
                    self._answer(*received)
                except httpx.HTTPStatusError as error:  # the run has ended, or the SuperLink has failed
                    print(f"{self._node.name}: {error}", flush=True)

    def _answer(self, header: Message, tree: ObjectTree) -> None:
        from client_app.app import app

        run_id, received_at = header.metadata.run_id, time.monotonic()
        context = self._context(run_id)
        pull, confirm = partial(self._pull, run_id), partial(self._confirm, run_id)
        message = pull_and_inflate_object_from_tree(tree, pull, confirm, return_type=Message)
        message.metadata.__dict__["_message_id"] = tree.object_id
        with self.one_at_a_time:
            TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, self._node_id
            reply = app(message=message, context=context)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            objects, object_tree = get_all_nested_objects(reply), get_object_tree(reply)
        wanted, session = self._send(reply, object_tree, time.monotonic() - received_at)
        push_objects(objects, partial(self._push, run_id, session), object_ids_to_push=wanted)

    def _context(self, run_id: int) -> Context:
        """Return the run's context; at the first message of a run its settings and code are fetched."""
        if run_id not in self._contexts:
            run = self._run_of(run_id)
            config = get_fused_config_from_fab(self._fab(run.fab_hash, run_id).content, run)
            own: dict[str, bool | int | float | str] = {"partition-id": self._node.number}
            self._contexts[run_id] = Context(run_id, self._node_id, own, RecordDict(), config)
        return self._contexts[run_id]


def be_nodes(first: int, last: int, keys: KeyFolder, address: str) -> None:
    """Be the nodes ``first`` to ``last`` - 1 until the process is ended."""
    for number in range(first, last):
        threading.Thread(target=LightNode(LocalNode(number), keys, address).run, daemon=True).start()
        time.sleep(0.02)  # as the machines of many sites, not all at the same instant
    threading.Event().wait()


def table(found: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    names = [each.name for each in fields(Row)]
    lines = [names, ["---"] * len(names), *([text(value) for value in asdict(each).values()] for each in found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(value: object) -> str:
    """Return a value for the table.

    >>> text(12.3456), text(0.01234), text(1234.5), text(7)
    ('12.3', '0.0123', '1234', '7')
    """
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value == 0 or abs(value) >= 100 else f"{value:.3g}"


def save(path: Path, found: list[Row]) -> None:
    """Write all rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(each) for each in found)


def main() -> None:
    """Play a run for every number of nodes, and print and save all rows."""
    args = arguments(sys.argv[1:])
    if args.be:
        be_nodes(*args.be, KeyFolder(args.keys), args.superlink)
    found: list[Row] = []
    for nodes in args.nodes:
        with tempfile.TemporaryDirectory(prefix="load-") as folder:
            try:
                with stop_requests():
                    found += play(nodes, args.rounds, args.timeout, args.words, Path(folder) / "logs")
            except StopRequested as stop:
                sys.exit(128 + stop.signum)
            except SuperLinkError as error:
                print(f"{nodes} nodes stopped here: {error}", file=sys.stderr, flush=True)
        save(args.output, found)
        print(table(found), flush=True)


def arguments(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings of the run")
    parser.add_argument("--nodes", type=int, nargs="+", default=[50])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that a round may take")
    parser.add_argument("--output", type=path_argument, default=Path("load.csv"))
    for option, settings in (("--be", {"type": int, "nargs": 2}), ("--superlink", {}), ("--keys", {"type": Path})):
        parser.add_argument(option, help=argparse.SUPPRESS, **settings)  # type: ignore[arg-type]
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
