"""The ClientApp: one message in, one reply out. Flower's types end here."""

import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.logger import log
from torch import nn

from client_app.attacks import NO_ATTACK, play_client
from client_app.audit import audit_client
from client_app.audit_files import write_audit
from client_app.local import answer_locally
from client_app.methods import Plan
from client_app.packing import named_arrays
from client_app.privacy import private
from client_app.profile import class_losses
from client_app.simulation import is_simulated
from client_app.site import NUMBER, account, at_site, node_share, own_id, warn_of_left_out
from client_app.state import ContextStore, FolderStore, StateStore
from client_app.trainer import learning_rate, pick_device
from tasks.base import Examples
from tasks.config import parse
from tasks.envelope import RECORD, Envelope
from tasks.measure import evaluate
from tasks.settings import ModelSettings, Settings, TaskSettings
from tasks.shares import Share, load_task

app = ClientApp(mods=[account, named_arrays])


@dataclass(frozen=True)
class Session:
    """What one message is about: who is asked, under which settings, with which data."""

    message: Message
    context: Context
    envelope: Envelope
    settings: Settings
    share: Share
    device: torch.device

    @classmethod
    def open(cls, message: Message, context: Context) -> "Session":
        """Read a message."""
        envelope = Envelope.of(message.content.config_records[RECORD])
        node = context.node_config
        settings = at_site(parse({**context.run_config, **envelope.changes()}), node)
        refuse_attack(settings)
        envelope = replace(envelope, client=own_id(settings, node, envelope.client))
        torch.set_num_threads(settings.train.threads or thread_share())
        return cls(
            message,
            context,
            envelope,
            settings,
            node_share(settings, node, envelope.client),
            pick_device(settings.train.device),
        )

    def plan(self) -> Plan:
        """Return what the server asks of this client in this round."""
        settings, envelope = self.settings, self.envelope
        return Plan(
            envelope.server_round,
            learning_rate(settings.train, envelope.server_round, envelope.num_rounds),
            (settings.seed, envelope.client, envelope.server_round),
            envelope.role,
            dict(self.message.content.config_records.get("config", {})),
        )

    def model(self) -> nn.Module:
        """Return this process's model with the received weights loaded."""
        model = cached_model(self.settings.task, self.settings.model).to(self.device)
        received = next(iter(self.message.content.array_records.values()))
        model.load_state_dict({name: torch.from_numpy(array.numpy()) for name, array in received.items()})
        return model

    def reply(self, metrics: dict[str, Any], model: nn.Module | None = None) -> Message:
        """Return the reply: metrics with the example count, and the model's weights where they were trained."""
        content = RecordDict({"metrics": MetricRecord({"num-examples": len(self.share.data), **metrics})})
        if model is not None:
            trained = {name: Array(tensor.cpu().numpy()) for name, tensor in model.state_dict().items()}
            content["arrays"] = ArrayRecord(trained)
        return Message(content, reply_to=self.message)

    def folder(self) -> Path | None:
        """Return this client's own folder: in the node's state directory, or in a simulation in the run directory."""
        own, client = self.context.node_config.get("state-dir"), str(self.envelope.client)
        if own:  # a number that the server gives may change when a run is resumed; what is kept here stays
            name = client if NUMBER in self.context.node_config else "site"
            return Path(str(own)) / run_key(self.envelope.run_name) / name
        if self.envelope.run_dir and is_simulated():
            return Path(self.envelope.run_dir) / "clients" / client
        return None

    def store(self) -> StateStore:
        """Return where this client's state is kept: its own folder if it has one, else the context."""
        folder = self.folder()
        return FolderStore(folder, self.envelope.checkpoint_round) if folder else ContextStore(self.context)


@app.query("identity")
def identity(message: Message, context: Context) -> Message:
    """Say how many examples this client has; in a simulation also how many of its labels are wrong."""
    session = Session.open(message, context)
    warn_of_left_out(session.settings)
    facts: dict[str, Any] = {"client": session.envelope.client}
    if is_simulated():  # what a real site knows about its labels stays there
        facts["noise-rate"] = session.share.noise_rate
        if session.share.data.labels.ndim == 1:
            facts["class-counts"] = session.share.data.class_counts().tolist()
    return session.reply(facts)


@app.train(mods=[private])
def train(message: Message, context: Context) -> Message:
    """Train the received model for one round."""
    session = Session.open(message, context)
    plan, model, store = session.plan(), session.model(), session.store()
    state = store.load(plan.server_round)
    result = play_client(model, session.share.data, session.settings, plan, state, session.device)
    store.save(plan.server_round, result.state)
    return session.reply(result.metrics, model)


@app.query("profile")
def profile(message: Message, context: Context) -> Message:
    """Say how large the received model's mean loss is on each class of this client's examples."""
    session = Session.open(message, context)
    task, batch_size = load_task(session.settings.task), session.settings.evaluate.batch_size
    losses, counts = class_losses(session.model(), task, session.share.data, batch_size, session.device)
    return session.reply({"class-losses": losses.tolist(), "class-counts": counts.tolist()})


@app.query("method")
def ask_method(message: Message, context: Context) -> Message:
    """Let the client method answer a question of the strategy; it comes before the training of its round."""
    session = Session.open(message, context)
    plan, store = session.plan(), session.store()
    state = store.load(plan.server_round)
    result = answer_locally(session.model(), session.share.data, session.settings, plan, state, session.device)
    store.save(plan.server_round - 1, result.state)
    return session.reply(result.metrics)


@app.query("audit")
def audit(message: Message, context: Context) -> Message:
    """Write this client's label audit into its own folder; the answer says nothing about its labels."""
    session = Session.open(message, context)
    settings, played, folder = session.settings, session.envelope.server_round, session.folder()
    if folder is None:
        log(
            WARNING,
            "No label audit: this node has no folder of its own. Start it with --node-config 'state-dir=/a/folder' to "
            "get one after the next run.",
        )
        return session.reply({})
    state = session.store().load(played + 1)
    found = audit_client(session.model(), session.share.data, settings, state, session.device)
    facts = {
        "run": session.envelope.run_name,
        "client": session.envelope.client,
        "round": played,
        "method": settings.method.name,
    }
    path = write_audit(folder, found, load_task(settings.task).class_names, settings.audit.format, facts)
    if not is_simulated():  # there the server says it once for all clients
        log(INFO, "Label audit: %s", path)
    return session.reply({})


@app.evaluate()
def evaluate_locally(message: Message, context: Context) -> Message:
    """Measure the received model on this client's own examples, with the labels it was given."""
    session = Session.open(message, context)
    data = session.share.data
    batch_size = session.settings.evaluate.batch_size
    task = load_task(session.settings.task)
    measures = evaluate(session.model(), task, Examples(data.features, data.labels), batch_size, session.device)
    return session.reply(measures)


@lru_cache(maxsize=2)
def cached_model(task: TaskSettings, model: ModelSettings) -> nn.Module:
    """Build the model once per process; every message brings its weights."""
    return load_task(task).build_model(model.name, model.args)


def run_key(name: str) -> str:
    """Return a run's name as a folder name; what the server sends must not lead anywhere else."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"the name of a run must be letters, digits, '.', '_' and '-', got {name!r}")
    return name


def refuse_attack(settings: Settings) -> None:
    """Refuse to be hostile on a real node: attacks are for experiments, in a simulation.

    Raises
    ------
    ValueError
        If an attack is configured and this client is not simulated.
    """
    if settings.attack.name != NO_ATTACK and not is_simulated():
        raise ValueError(
            f"attack.name = {settings.attack.name!r}: attacks are made in a simulation only, and this is a real node; "
            "remove attack.* from the run configuration"
        )


def thread_share() -> int:
    """Return how many threads a client may use: Ray's share of the machine in a simulation, else all cores."""
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1
