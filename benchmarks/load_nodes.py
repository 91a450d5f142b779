"""Light nodes: one process that speaks for many SuperNodes, each with its own key, connection, polls and heartbeats.

    python -m benchmarks.load_nodes --superlink HOST:PORT --keys DIR --first 0 --count 250 --app MODULE:APP --log FILE

To the SuperLink they are SuperNodes: Flower's own connection, the same requests in the same order, a poll every three
seconds while there is nothing to do. What differs lies behind it: the ClientApp is called in this process, one message
at a time, instead of in a new process for each. Every two seconds a line of totals is added to the log.
"""

import argparse
import importlib
import json
import threading
import time
from functools import partial
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.config import get_fused_config_from_fab
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_connection import http_request_response

from server_app.command.key_folder import KeyFolder
from server_app.command.local_federation import LocalNode

IDLE_SECONDS = 3.0  # as flwr.supernode.start_client_internal, which has it as a plain number


class Totals:
    """What all nodes of this process have done; every node adds to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = {"nodes": 0.0, "polls": 0.0, "poll_s": 0.0, "answers": 0.0, "answer_s": 0.0, "failures": 0.0}

    def add(self, **amounts: float) -> None:
        """Add to the sums."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] += amount

    def line(self) -> str:
        """Return the sums as JSON."""
        with self._lock:
            return json.dumps(self._sums)


class LightNode:
    """One node. ``run`` does what a SuperNode does, until the process ends."""

    one_at_a_time = threading.Lock()  # Flower keeps a task's identity in the class TaskIdentity, once per process

    def __init__(self, node: LocalNode, keys: KeyFolder, address: str, app: ClientApp, totals: Totals) -> None:
        self._node, self._address, self._app, self._totals = node, address, app, totals
        key = load_ssh_private_key(keys.node(node.name, "key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._keys, self._authority = (key, key.public_key()), keys.authority.read_bytes()
        self._contexts: dict[int, Context] = {}

    def run(self) -> None:
        """Connect, and answer messages."""
        with http_request_response(self._address, False, self._authority, self._keys) as connection:
            self._node_id, receive, self._send, self._run_of, self._fab, self._pull, self._push, self._confirm = (
                connection
            )
            self._totals.add(nodes=1)
            while True:
                started = time.monotonic()
                received = receive()
                if received is None:
                    self._totals.add(polls=1, poll_s=time.monotonic() - started)
                    time.sleep(IDLE_SECONDS)
                    continue
                try:
                    self._answer(*received)
                    self._totals.add(answers=1, answer_s=time.monotonic() - started)
                except httpx.HTTPStatusError:  # the run has ended, or the SuperLink has failed
                    self._totals.add(failures=1)

    def _answer(self, header: Message, tree: ObjectTree) -> None:
        run_id, received_at = header.metadata.run_id, time.monotonic()
        context = self._context(run_id)
        pull, confirm = partial(self._pull, run_id), partial(self._confirm, run_id)
        message = pull_and_inflate_object_from_tree(tree, pull, confirm, return_type=Message)
        message.metadata.__dict__["_message_id"] = tree.object_id
        with self.one_at_a_time:
            TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, self._node_id
            reply = self._app(message=message, context=context)
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


def main() -> None:
    """Start the nodes and write totals until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT")
    parser.add_argument("--keys", required=True, type=Path, metavar="DIR")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--app", required=True, metavar="MODULE:APP")
    parser.add_argument("--log", required=True, type=Path, metavar="FILE")
    args = parser.parse_args()
    module, _, name = args.app.partition(":")
    app: ClientApp = getattr(importlib.import_module(module), name)
    keys, totals = KeyFolder(args.keys), Totals()
    for number in range(args.first, args.first + args.count):
        node = LightNode(LocalNode(number), keys, args.superlink, app, totals)
        threading.Thread(target=node.run, daemon=True).start()
        time.sleep(0.02)  # as the machines of many sites, not all at the same instant
    with args.log.open("w", buffering=1) as log:
        while True:
            log.write(totals.line() + "\n")
            time.sleep(2.0)


if __name__ == "__main__":
    main()
