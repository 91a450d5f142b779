"""Local training of an honest client for a round: the configured method and loss on its examples."""

import torch
from torch import nn

from client_app import losses
from client_app.methods import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.trainer import Trainer, to_device
from tasks.base import ClientData
from tasks.client_data import load_task
from tasks.seeds import seed_everything
from tasks.settings import Settings


def train_locally(
    model: nn.Module,
    data: ClientData,
    settings: Settings,
    round_config: RoundConfig,
    state: State | None,
    device: torch.device,
) -> FitResult:
    """Train ``model``, which holds the received weights, in place.

    Every draw follows from ``round_config.stream``. ``state`` is None before the client's first round.

    Raises
    ------
    PluginError
        If the method or the loss is unknown, or an argument does not fit.
    """
    method, context, known = _prepare(data, settings, round_config, state, device)
    return method.fit(model, context, round_config, known)


def answer_locally(
    model: nn.Module,
    data: ClientData,
    settings: Settings,
    round_config: RoundConfig,
    state: State | None,
    device: torch.device,
) -> FitResult:
    """Let the method answer the question in ``round_config.config`` about ``model``; see :func:`train_locally`.

    Raises
    ------
    ValueError
        If the method answers no questions, or not this one.
    """
    method, context, known = _prepare(data, settings, round_config, state, device)
    return method.answer(model, context, round_config, known)


def _prepare(
    data: ClientData, settings: Settings, round_config: RoundConfig, state: State | None, device: torch.device
) -> tuple[ClientMethod, TrainContext, State]:
    seed, client, server_round = round_config.stream
    seed_everything(seed, "client", client, server_round)  # dropout, and what plug-ins draw
    method = METHODS.build(settings.method.name, settings.method.args)
    loss, counts = settings.loss, torch.from_numpy(data.class_counts())
    objective = losses.build(loss.name, data.num_classes, loss.args, preset=loss.preset, class_counts=counts)
    trainer = Trainer(load_task(settings.task), settings.train, device)
    context = TrainContext(trainer, objective, to_device(data, device), data.num_classes)
    return method, context, method.init_state(data) if state is None else state
