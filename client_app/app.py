"""The ClientApp: one message in, one reply out. Flower's types end here."""

import os
import re
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from client_app import losses
from client_app.methods import METHODS, Kit, Plan
from client_app.state import ContextStore, FolderStore, StateStore
from client_app.trainer import Trainer, learning_rate, pick_device, to_device
from tasks import wire
from tasks.base import Examples
from tasks.config import parse
from tasks.envelope import ARRAYS, RECORD, Envelope
from tasks.measure import evaluate
from tasks.seeds import seed_everything
from tasks.settings import ModelSettings, Settings, TaskSettings
from tasks.shares import Share, client_share, load_task

app = ClientApp()


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
        settings = parse({**context.run_config, **envelope.changes()})
        envelope = replace(envelope, client=own_id(context, envelope, settings.federation.num_clients))
        torch.set_num_threads(settings.train.threads or thread_share())
        return cls(
            message,
            context,
            envelope,
            settings,
            client_share(settings, envelope.client),
            pick_device(settings.train.device),
        )

    def model(self) -> nn.Module:
        """Return this process's model with the received weights loaded."""
        model = cached_model(self.settings.task, self.settings.model).to(self.device)
        arrays = wire.unpack(
            next(iter(self.message.content.array_records.values()))[ARRAYS].numpy(), self.envelope.layout
        )
        model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        return model

    def reply(self, metrics: dict[str, Any], model: nn.Module | None = None) -> Message:
        """Return the reply: metrics with the example count, and the model's weights where they were trained."""
        content = RecordDict({"metrics": MetricRecord({"num-examples": len(self.share.data), **metrics})})
        if model is not None:
            flat, header = wire.pack({name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()})
            content["arrays"] = ArrayRecord({ARRAYS: Array(flat)})
            content[RECORD] = ConfigRecord({"layout": header})
        return Message(content, reply_to=self.message)

    def store(self) -> StateStore:
        """Return where this client's state is kept: the node's own folder, the run directory, or the context."""
        own, client = self.context.node_config.get("state-dir"), str(self.envelope.client)
        if own:
            folder = Path(str(own)) / run_key(self.envelope.run_name) / client
        elif self.envelope.run_dir and is_simulated():
            folder = Path(self.envelope.run_dir) / "clients" / client
        else:
            return ContextStore(self.context)
        return FolderStore(folder, self.envelope.checkpoint_round)


@app.query("identity")
def identity(message: Message, context: Context) -> Message:
    """Say how many examples this client has; in a simulation also how many of its labels are wrong."""
    session = Session.open(message, context)
    facts: dict[str, Any] = {"client": session.envelope.client}
    if is_simulated():  # what a real site knows about its labels stays there
        facts["noise-rate"] = session.share.noise_rate
        facts["class-counts"] = session.share.data.class_counts().tolist()
    return session.reply(facts)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model for one round."""
    session = Session.open(message, context)
    settings, envelope, data = session.settings, session.envelope, session.share.data
    seed_everything(settings.seed, "client", envelope.client, envelope.server_round)  # dropout, and what plug-ins draw
    model = session.model()
    method = METHODS.build(settings.method.name, settings.method.args)
    objective = losses.build(
        settings.loss.name,
        data.num_classes,
        settings.loss.args,
        preset=settings.loss.preset,
        class_counts=torch.from_numpy(data.class_counts()),
    )
    trainer = Trainer(load_task(settings.task), settings.train, session.device)
    plan = Plan(
        envelope.server_round,
        learning_rate(settings.train, envelope.server_round, envelope.num_rounds),
        (settings.seed, envelope.client, envelope.server_round),
        envelope.role,
        dict(message.content.config_records.get("config", {})),
    )
    store = session.store()
    state = store.load(plan.server_round)
    result = method.fit(
        model,
        Kit(trainer, objective, to_device(data, session.device)),
        plan,
        method.init_state(data) if state is None else state,
    )
    store.save(plan.server_round, result.state)
    return session.reply(result.metrics, model)


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


def own_id(context: Context, envelope: Envelope, num_clients: int) -> int:
    """Return this client's id: its node's partition-id, which the operator or the simulation set.

    Raises
    ------
    ValueError
        If neither the node nor the message says which client this is, or there is no such client.
    """
    client = int(context.node_config.get("partition-id", envelope.client))
    if not 0 <= client < num_clients:
        raise ValueError(f"start this node with --node-config 'partition-id=K', its own number, 0 to {num_clients - 1}")
    return client


def run_key(name: str) -> str:
    """Return a run's name as a folder name; what the server sends must not lead anywhere else."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"the name of a run must be letters, digits, '.', '_' and '-', got {name!r}")
    return name


def thread_share() -> int:
    """Return how many threads a client may use: Ray's share of the machine in a simulation, else all cores."""
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1


def is_simulated() -> bool:
    """Tell whether this process is a Ray worker, so that it shares the server's file system."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
