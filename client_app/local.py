"""One client's honest round: the configured method and loss on its examples."""

import torch
from torch import nn

from client_app import losses
from client_app.methods import METHODS, ClientMethod, FitResult, Kit, Plan, State
from client_app.trainer import Trainer, to_device
from tasks.base import ClientData
from tasks.client_data import load_task
from tasks.seeds import seed_everything
from tasks.settings import Settings


def train_locally(
    model: nn.Module, data: ClientData, settings: Settings, plan: Plan, state: State | None, device: torch.device
) -> FitResult:
    """Train ``model``, which holds the received weights, in place.

    Every draw follows from ``plan.stream``. ``state`` is None before the client's first round.

    Raises
    ------
    PluginError
        If the method or the loss is unknown, or an argument does not fit.
    """
    method, kit, known = _prepare(data, settings, plan, state, device)
    return method.fit(model, kit, plan, known)


def answer_locally(
    model: nn.Module, data: ClientData, settings: Settings, plan: Plan, state: State | None, device: torch.device
) -> FitResult:
    """Let the method answer the question in ``plan.config`` about the received ``model``; see :func:`train_locally`.

    Raises
    ------
    ValueError
        If the method answers no questions, or not this one.
    """
    method, kit, known = _prepare(data, settings, plan, state, device)
    return method.answer(model, kit, plan, known)


def _prepare(
    data: ClientData, settings: Settings, plan: Plan, state: State | None, device: torch.device
) -> tuple[ClientMethod, Kit, State]:
    seed, client, server_round = plan.stream
    seed_everything(seed, "client", client, server_round)  # dropout, and what plug-ins draw
    method = METHODS.build(settings.method.name, settings.method.args)
    loss, counts = settings.loss, torch.from_numpy(data.class_counts())
    objective = losses.build(loss.name, data.num_classes, loss.args, preset=loss.preset, class_counts=counts)
    trainer = Trainer(load_task(settings.task), settings.train, device)
    kit = Kit(trainer, objective, to_device(data, device), data.num_classes)
    return method, kit, method.init_state(data) if state is None else state
