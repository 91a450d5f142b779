"""Every kind of bad reply against any strategy, through the real grid, run loop and strategies; clients are formulas.

    python -m tests.integration.hostile_table

A round survives a bad reply if it leaves the model and the strategy's memory bit for bit as the round without it does,
and the reason is on record. The tests play every kind with one strategy, because one function validates the replies of
all, and a few kinds with each family of strategies, because each is given its updates in another way.
"""

import gc
import logging
import re
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message

from server_app.loop import train_round
from server_app.registration import Client, Registration
from server_app.state import RunState
from server_app.storage.run_directory import RunDirectory
from server_app.storage.strategy_state import strategy_state
from server_app.strategy import STRATEGIES, build_strategy
from server_app.transport.client_grid import ClientGrid
from strategies.aggregators import AGGREGATORS
from strategies.server_optimizers import SERVER_OPTIMIZERS
from strategies.validation import RoundReport
from tasks import protocol
from tasks.config import DEFAULTS, parse
from tasks.protocol import ARRAYS, RECORD, MessageHeader, Mode
from tasks.seeds import rng, seed_everything
from tasks.settings import Settings
from tests.integration.hostile_kinds import HONEST, KINDS, SILENT, Kind, Letter
from tests.messages import answer

CLIENTS, BAD = 5, 3

ROBUST = [f"robust, {entry.name}" for entry in AGGREGATORS.entries()]
STEPS = [f"robust, geometric-median, {entry.name}" for entry in SERVER_OPTIMIZERS.entries()]
MIXED = ["robust, median after nnm", "robust, geometric-median after bucketing", "robust, krum after norm-clipping"]
STOCK = [entry.name for entry in STRATEGIES.entries() if entry.name != "robust"]
OWN = ["examples.norm_clipping:NormClipping"]
PRIVATE = ["private, server-fixed", "private, client-adaptive"]
ALL = [*ROBUST, *MIXED, *STEPS, *STOCK, *OWN, *PRIVATE]

ONE = "robust, geometric-median"
FAMILIES = {
    "a rule of updates": "robust, mean",
    "a rule after a pre-aggregator, with the model's buffers": "robust, median after nnm",
    "a server optimizer with a memory": "robust, geometric-median, fedadam",
    "a stock strategy": "flower-fedavg",
    "a stock strategy with a memory": "flower-fedadam",
    "a strategy of one's own": OWN[0],
    "noise-partition": "noise-partition",
    "fedcorr": "fedcorr",
    "private, the server clips": "private, server-fixed",
    "private, clients clip": "private, client-adaptive",
}
WIRED = ["silence", "nan", "shape", "metric missing", "reply twice"]

ARGS = {
    "fedcorr": f"clients_per_step = {CLIENTS}",  # so that the bad client is asked in every round
    "flower-bulyan": "num_malicious_nodes = 0",
    "flower-fedavgm": "server_momentum = 0.9",
    "flower-krum": "num_malicious_nodes = 1",
    "flower-multikrum": "num_malicious_nodes = 1, num_nodes_to_select = 2",
    "flower-qfedavg": 'client_learning_rate = 0.1, train_loss_key = "train-loss"',
}


class Clients:
    """Flower's side of the grid: every client answers at once, one of them as the kind of its reply says."""

    def __init__(self) -> None:
        self.kind = HONEST
        self._last: dict[int, Message] = {}
        self._replies: list[Message] = []
        self._server_round = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Let the clients answer."""
        names = []
        self._server_round += 1
        for message in messages:
            node = message.metadata.dst_node_id
            names.append(f"{node}-{self._server_round}")
            message.metadata.__dict__["_message_id"] = names[-1]
            letter = self._letter(node - 1000, message)
            self._replies += (self.kind if node - 1000 == BAD else HONEST).send(letter)
            self._last[node] = message
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return all replies, asked for or not."""
        replies, self._replies = self._replies, []
        return replies[::-1]

    def _letter(self, client: int, message: Message) -> Letter:
        layout = MessageHeader.of(message.content.config_records[RECORD]).layout
        flat = protocol.read_npy(message.content.array_records["arrays"][ARRAYS].data)
        generator = rng(1, "client", client, self._server_round)
        arrays = {name: _trained(array, generator) for name, array in protocol.named_views(flat, layout).items()}
        earlier = self._last.get(message.metadata.dst_node_id, message)
        metrics = {"num-examples": 10 + client, "train-loss": 1 / (1 + client), "norm_bit": client % 2}
        return Letter(message, earlier, arrays, metrics)


def _trained(array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    step = 1 if array.dtype.kind == "i" else 0.1 * generator.random(array.shape)
    return np.asarray(array + step, array.dtype)


def settings(name: str) -> Settings:
    """Return the configuration of a strategy of the table."""
    flat = {**DEFAULTS, "strategy.name": name, "strategy.args": ARGS.get(name, ""), "federation.num-clients": CLIENTS}
    kind, _, chosen = name.partition(", ")
    if kind == "robust":
        rule, _, steps = chosen.partition(" after ")
        rule, _, server_optimizer = rule.partition(", ")
        flat |= {
            "strategy.name": kind,
            "strategy.aggregator": rule,
            "strategy.server-optimizer": server_optimizer or "none",
        }
        flat |= {"strategy.pre-aggregators": f"{steps} = {{}}"} if steps else {}
    if kind == "private":
        flat |= {"strategy.name": "robust", "strategy.aggregator": "mean", "strategy.weighting": "uniform"}
        flat |= {"privacy.mode": chosen, "privacy.noise-multiplier": 0.01, "privacy.clipping-norm": 5.0}
    return parse(flat | {"federation.round-timeout": 1e-9})


class Federation:
    """A run between two rounds: its clients and its state."""

    def __init__(self, name: str, dtype: str) -> None:
        self._clients = Clients()
        registration = Registration(tuple(Client(i, 1000 + i, 10 + i) for i in range(CLIENTS)))
        weight = rng(1, "model").standard_normal((5, 4)).astype(dtype)
        model: protocol.Arrays = {"weight": weight, "running_var": np.ones(5, dtype), "count": np.array(100)}
        if name in PRIVATE:  # Flower's wrappers clip and blur parameters only
            del model["running_var"], model["count"]
        strategy = build_strategy(settings(name), registration, ("running_var",), mode=Mode.SIMULATION)
        self.run = RunState(settings(name), RunDirectory(Path()), registration, strategy, model, Mode.SIMULATION)

    def play(self, server_round: int, kind: Kind, extra: Iterable[Message] = ()) -> RoundReport:
        """Play one round with a bad reply, as the loop of a run does; ``extra`` replies bypass the grid."""
        self._clients.kind = kind
        seed_everything(1, "round", server_round)
        self.run.server_round = server_round
        grid = Crowded(self._clients, self.run.registration.nodes(), MessageHeader(-1), extra)
        grid.begin_round(server_round, server_round - 1)
        train_round(self.run, grid)
        return self.run.report

    def state(self) -> tuple[dict[str, bytes], dict[str, Any]]:
        """Return the model and all that the strategy keeps for later rounds, as a checkpoint would hold them."""
        arrays, shapes = strategy_state(self.run.inner_strategy)
        return {name: array.tobytes() for name, array in (self.run.arrays | arrays).items()}, shapes


class Crowded(ClientGrid):
    """The grid of clients, with replies that nobody has asked for."""

    def __init__(self, inner: Clients, nodes: dict[int, int], header: MessageHeader, extra: Iterable[Message]) -> None:
        super().__init__(inner, nodes, header, Mode.SIMULATION)  # type: ignore[arg-type]
        self._extra = list(extra)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and return the replies, and the others after them."""
        return [*super().send_and_receive(messages, timeout=timeout), *self._extra]


@cache
def after_one_round(name: str, dtype: str) -> Federation:
    """Return a federation that has played an honest round, so that a strategy with a memory has one."""
    federation = Federation(name, dtype)
    federation.play(1, HONEST)
    return federation


@cache
def without_bad_reply(name: str, kept: bool, dtype: str) -> Federation:
    """Return the federation after a second round in which the bad client was silent, or honest."""
    federation = deepcopy(after_one_round(name, dtype))
    federation.play(2, HONEST if kept else SILENT)
    return federation


def verdict(name: str, kind: Kind) -> str:
    """Return "survived", or what went wrong."""
    before, without = after_one_round(name, kind.dtype), without_bad_reply(name, kind.kept, kind.dtype)
    federation = deepcopy(before)
    report = federation.play(2, kind)
    reason = report.quarantined.get(BAD, "")
    if report.skipped or federation.run.arrays["weight"].tobytes() == before.run.arrays["weight"].tobytes():
        return f"no new model: {report.skipped}"
    if not all(np.isfinite(array).all() for array in federation.run.arrays.values()):
        return "not finite"
    if federation.state() != without.state():
        return "another model"
    if report.quarantined.keys() - {BAD}:
        return f"an honest client is blamed: {report.quarantined}"
    if not re.search(kind.reason or "^$", reason) or not reason.isprintable() or len(reason) > 310:
        return f"reason: {reason!r}"
    return "survived"


def table(names: Iterable[str]) -> str:
    """Return the Markdown table, kinds down and strategies across."""
    columns = list(names)
    lines = [f"| bad reply | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {kind} | {' | '.join(verdict(name, KINDS[kind]) for name in columns)} |" for kind in KINDS]
    return "\n".join(lines)


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    answer(0)  # sets the identity that Flower's messages need
    gc.freeze()  # Flower's strategies search all of the process for garbage
    print(table(ALL))
