"""Session of one message: what it is about, and the way to its reply. Flower's types end here."""

import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from torch import nn

from client_app.attacks import NO_ATTACK
from client_app.methods import RoundConfig
from client_app.node import (
    PARTITION_ID,
    NodeError,
    check_encoder,
    client_number,
    current_mode,
    lock_state_dir,
    node_dataset,
    node_settings,
)
from client_app.state import ContextStore, FolderStore, StateStore
from client_app.trainer import learning_rate, pick_device
from tasks.client_data import ClientDataset, load_task
from tasks.config import parse
from tasks.protocol import RECORD, MessageHeader, Mode
from tasks.records import view_record
from tasks.settings import ModelSettings, Settings, TaskSettings

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
        settings = node_settings(parse({**context.run_config, **header.changes()}), node, mode)
        refuse_attack(settings, mode)
        check_encoder(settings, header.encoder)
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
        return RoundConfig(
            header.server_round,
            learning_rate(settings.train, header.server_round, header.num_rounds),
            (settings.seed, header.client, header.server_round),
            header.role,
            dict(self.message.content.config_records.get("config", {})),
        )

    def model(self) -> nn.Module:
        """Return this process's model with the received weights loaded."""
        model = cached_model(self.settings.task, self.settings.model).to(self.device)
        received = next(iter(self.message.content.array_records.values()))
        model.load_state_dict({name: torch.from_numpy(array.numpy()) for name, array in received.items()})
        return model

    def reply(self, metrics: dict[str, Any], model: nn.Module | None = None) -> Message:
        """Return the reply: metrics with the example count, and the model's weights where they were trained.

        The weights are views of the model: they are packed before it trains again, or must be copied.
        """
        content = RecordDict({"metrics": MetricRecord({"num-examples": len(self.dataset.data), **metrics})})
        if model is not None:
            content["arrays"] = view_record({name: t.cpu().numpy() for name, t in model.state_dict().items()})
        return Message(content, reply_to=self.message)

    def folder(self) -> Path | None:
        """Return this client's own folder: in the node's state directory, or in a simulation in the run directory."""
        own, client = self.context.node_config.get("state-dir"), str(self.header.client)
        if own:  # a number that the server gives may change when a run is resumed; what is kept here stays
            name = client if PARTITION_ID in self.context.node_config else "site"
            return Path(str(own)) / run_key(self.header.run_name) / name
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


@lru_cache(maxsize=2)
def cached_model(task: TaskSettings, model: ModelSettings) -> nn.Module:
    """Build the model once per process; every message brings its weights."""
    return load_task(task).build_model(model.name, model.args)


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


def refuse_attack(settings: Settings, mode: Mode) -> None:
    """Refuse to be hostile on a real node: attacks are for experiments, in a simulation.

    Raises
    ------
    NodeError
        If an attack is configured and this client is not simulated.
    """
    if settings.attack.name != NO_ATTACK and mode is Mode.DEPLOYMENT:
        raise NodeError(
            f"attack.name = {settings.attack.name!r}: attacks are made in a simulation only, and this is a real node; "
            "remove attack.* from the run configuration"
        )


def thread_share() -> int:
    """Return how many threads a client may use: Ray's share of the machine in a simulation, else all cores."""
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1
