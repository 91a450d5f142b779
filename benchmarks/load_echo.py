"""A Flower app that trains nothing, to load a SuperLink: clients add their number to the model and send it back.

Its ServerApp sends and collects through Winnow's own grid, so pushing and pulling are the product's, and writes a line
of times for every round. Neither side needs torch. ``app_folder`` makes the folder that ``flwr run`` takes.
"""

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tomli_w
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from server_app.grid import ClientGrid
from tasks import wire
from tasks.envelope import ARRAYS, RECORD, Envelope
from tasks.mode import Mode

CONFIG: dict[str, int | float | str] = {"nodes": 2, "rounds": 1, "parameters": 1, "timeout": 600.0, "output": ""}
client = ClientApp()
server = ServerApp()


def app_folder(folder: Path) -> Path:
    """Make the app's folder: this file and its declaration."""
    folder.mkdir(parents=True)
    module = Path(__file__)
    shutil.copy(module, folder)
    parts = {"serverapp": f"{module.stem}:server", "clientapp": f"{module.stem}:client"}
    app = {"publisher": "winnow", "components": parts, "config": CONFIG}
    declaration = {"project": {"name": "echo", "version": "1.0.0"}, "tool": {"flwr": {"app": app}}}
    (folder / "pyproject.toml").write_text(tomli_w.dumps(declaration))
    return folder


@client.train()
def echo(message: Message, context: Context) -> Message:
    """Return the model with the client's number added, so that no two replies share bytes."""
    config = message.content.config_records[RECORD]
    arrays = wire.unpack(message.content.array_records["arrays"][ARRAYS].numpy(), str(config["layout"]))
    number = float(context.node_config["partition-id"]) + 1
    flat, layout = wire.pack({name: np.add(array, number, dtype=np.float32) for name, array in arrays.items()})
    content = RecordDict({"arrays": ArrayRecord({ARRAYS: Array(flat)}), RECORD: ConfigRecord({"layout": layout})})
    content["metrics"] = MetricRecord({"num-examples": 1, "train-loss": 0.0})
    return Message(content, reply_to=message)


class Stopwatch:
    """Times a grid of Flower: how long pushing took, and the pulls that brought a reply and those that did not."""

    def __init__(self, grid: Grid) -> None:
        self._push, self._pull = grid.push_messages, grid.pull_messages
        grid.push_messages, grid.pull_messages = self.push, self.pull  # type: ignore[method-assign]
        self.measured: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self.measured = dict.fromkeys(("push_s", "pulls", "pull_s", "empty_pulls", "empty_s"), 0.0)

    def push(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages."""
        started = time.monotonic()
        names = list(self._push(messages))
        self.measured["push_s"] += time.monotonic() - started
        return names

    def pull(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Ask for replies."""
        started = time.monotonic()
        replies = list(self._pull(message_ids))
        count, seconds = ("pulls", "pull_s") if replies else ("empty_pulls", "empty_s")
        self.measured[count] += 1
        self.measured[seconds] += time.monotonic() - started
        return replies


@server.main()
def serve(grid: Grid, context: Context) -> None:
    """Wait for the nodes, then send and collect a random model once a round."""
    config = {key: type(default)(context.run_config[key]) for key, default in CONFIG.items()}
    while len(nodes := sorted(grid.get_node_ids())) < int(config["nodes"]):
        time.sleep(1.0)
    timed, clients = Stopwatch(grid), ClientGrid(grid, dict(enumerate(nodes)), Envelope(-1), Mode.DEPLOYMENT)
    with Path(str(config["output"])).open("a", buffering=1) as output:
        for server_round in range(1, int(config["rounds"]) + 1):
            timed.restart()
            line = play_round(clients, server_round, int(config["parameters"]), float(config["timeout"]))
            output.write(json.dumps({**line, **timed.measured}) + "\n")


def play_round(clients: ClientGrid, server_round: int, parameters: int, timeout: float) -> dict[str, float]:
    """Let every client answer once; return the round, its seconds, and how many good and bad replies came."""
    clients.begin_round(server_round, 0)
    rng = np.random.default_rng(server_round)  # constant arrays would travel once: Flower stores equal bytes once
    record = ArrayRecord({"layer": Array(rng.random(parameters, np.float32))})
    started = time.monotonic()
    messages = [Message(RecordDict({"arrays": record}), node, "train") for node in clients.get_node_ids()]
    replies = list(clients.send_and_receive(messages, timeout=timeout))
    seconds = time.monotonic() - started
    good = sum(reply.has_content() for reply in replies)
    return {"round": server_round, "seconds": seconds, "replies": good, "errors": len(replies) - good}
