"""Session of one message: what it is about, and the way to its reply. Flower's types end here."""

import json
import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from torch import nn

from client_app.attacks import BuildRule, refuse_attack
from client_app.methods import FitResult, RoundConfig
from client_app.node import (
    PARTITION_ID,
    STATE_DIR,
    NodeError,
    check_encoder,
    check_frozen,
    check_trainer_idle,
    client_number,
    current_mode,
    lock_state_dir,
    node_dataset,
    node_settings,
    own_folder,
)
from client_app.state import ContextStore, FolderStore, StateStore
from client_app.trainer import learning_rate, pick_device
from tasks.client_data import ClientDataset
from tasks.config import parse
from tasks.extra_arrays import (
    GIVEN,
    NAMED,
    further_networks,
    is_beside,
    is_given,
    model_part,
    of_network,
    without_prefix,
)
from tasks.fresh_model import fresh_model
from tasks.plugins import load_object
from tasks.protocol import MODEL_ROUND, RECORD, Arrays, MessageHeader, Mode
from tasks.records import view_of, view_record
from tasks.seeds import seed_everything
from tasks.settings import Settings
from tasks.weights import load_arrays, model_arrays

RUN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"


@dataclass(frozen=True)
class Session:
    """What one message is about: who is asked, under which settings, with which data."""

    message: Message
    context: Context
    header: MessageHeader
    settings: Settings
    dataset: ClientDataset
    device: torch.device
    mode: Mode

    @classmethod
    def open(cls, message: Message, context: Context) -> "Session":
        """Read a message."""
        header = MessageHeader.of(message.content.config_records.get(RECORD, {}))
        node, mode = context.node_config, current_mode()
        check_trainer_idle(node)
        settings = node_settings(_settings(json.dumps({**context.run_config, **header.changes()})), node, mode)
        refuse_attack(settings, mode, NodeError)
        check_encoder(settings, header.encoder)
        check_frozen(settings, header.frozen)
        header = replace(header, client=client_number(settings, node, header.client, mode))
        torch.set_num_threads(settings.train.threads or thread_share())
        return cls(
            message,
            context,
            header,
            settings,
            node_dataset(settings, node, header.client, mode),
            pick_device(settings.train.device),
            mode,
        )

    def round_config(self) -> RoundConfig:
        """Return what the server asks of this client in this round."""
        settings, header = self.settings, self.header
        beside = {name: view_of(array) for name, array in self._received().items() if is_beside(name)}
        return RoundConfig(
            header.server_round,
            learning_rate(settings.train, header.server_round, header.num_rounds),
            (settings.seed, header.client, header.server_round),
            header.role,
            dict(self.message.content.config_records.get("config", {})),
            tuple(self._network(arrays) for arrays in further_networks(beside).values()),
            without_prefix(NAMED, beside),
            without_prefix(GIVEN, beside),
        )

    @property
    def model_round(self) -> int:
        """Of which round the received model is, where the server says that it is not the last one."""
        config = self.message.content.config_records
        sent = config["config"].get(MODEL_ROUND) if "config" in config else None
        return self.header.server_round if sent is None else int(str(sent))

    def model(self) -> nn.Module:
        """Return a fresh model with the received weights; what it draws when it is asked follows from the message."""
        model = self._network({name: view_of(array) for name, array in model_part(self._received()).items()})
        seed_everything(self.settings.seed, "client", self.header.client, self.header.server_round)
        return model

    def _network(self, arrays: Arrays) -> nn.Module:
        network = fresh_model(self.settings)
        load_arrays(network, arrays)
        return network.to(self.device)

    def _received(self) -> ArrayRecord:
        return next(iter(self.message.content.array_records.values()))

    def build_rule(self) -> BuildRule | None:
        """Return how an attack learns the server's aggregator, which the server says; None at a real node."""
        known = self.header.rule if self.mode is Mode.SIMULATION else ""
        return cast(BuildRule, load_object(known)) if known else None

    def reply(self, metrics: dict[str, Any]) -> Message:
        """Return the reply: metrics with the example count."""
        content = RecordDict({"metrics": MetricRecord({"num-examples": len(self.dataset.data), **metrics})})
        return Message(content, reply_to=self.message)

    def reply_trained(self, model: nn.Module, result: FitResult) -> Message:
        """Return the reply with views of the weights of all networks, and the method's named arrays."""
        received = self._received()
        own = {1: model_part(received), **further_networks(received)}
        found = {
            number: model_arrays(network, own[number])
            for number, network in zip(own, [model, *result.networks], strict=True)
        }
        arrays = found.pop(1)
        for number, further in found.items():
            arrays |= of_network(number, further)
        arrays |= {NAMED + name: array for name, array in result.arrays.items()}
        reply = self.reply(result.metrics)
        in_order = {name: arrays[name] for name in received if not is_given(name)}  # as they came
        reply.content["arrays"] = view_record(in_order)
        return reply

    def folder(self) -> Path | None:
        """Return this client's own folder: in the node's state directory, or in a simulation in the run directory."""
        own, client = own_folder(self.context.node_config, STATE_DIR), str(self.header.client)
        if own:  # a number that the server gives may change when a run is resumed; what is kept here stays
            name = client if PARTITION_ID in self.context.node_config else "site"
            return Path(own) / run_key(self.header.run_name) / name
        if self.header.run_dir and self.mode is Mode.SIMULATION:
            return Path(self.header.run_dir) / "clients" / client
        return None

    def lock_folder(self) -> None:
        """Make sure that no other node writes into this client's folder; one with a number has its own by that.

        Raises
        ------
        StateDirError
            If another node does.
        """
        folder = self.folder()
        if folder is not None and PARTITION_ID not in self.context.node_config:
            lock_state_dir(folder, self.context.node_id)

    def store(self) -> StateStore:
        """Return where this client's state is kept: its own folder if it has one, else the context."""
        folder = self.folder()
        return FolderStore(folder, self.header.checkpoint_round) if folder else ContextStore(self.context)


@lru_cache(maxsize=4)
def _settings(config: str) -> Settings:
    """Return the settings of a configuration (JSON), kept: all messages of a run have the same, and parsing takes 3 ms.

    Raises
    ------
    ConfigError
        With every error found.
    """
    return parse(json.loads(config))


def run_key(name: str) -> str:
    """Return a run's name as a folder name; what the server sends must not lead anywhere else.

    Raises
    ------
    NodeError
        If it is anything but a plain name.
    """
    if not re.fullmatch(RUN_NAME, name):
        raise NodeError(f"the name of a run must be up to 200 letters, digits, '.', '_' and '-', got {name!r:.220}")
    return name


def thread_share() -> int:
    """Return how many threads a client may use: Ray's share of the machine in a simulation, else all cores."""
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1
