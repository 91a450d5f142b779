"""Local training of an honest client for a round: the configured method and loss on its examples."""

from dataclasses import replace

import torch
from torch import nn

from client_app import losses
from client_app.losses.warmup import warmed_up
from client_app.methods import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.trainer import Trainer, to_device
from tasks.base import ClientData
from tasks.client_data import load_task
from tasks.extra_arrays import returned
from tasks.seeds import seed_everything
from tasks.settings import Settings

OF_LOSS = "loss."
"""Begins the names under which a client's state keeps what the loss learns; the method does not see them."""


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
    ValueError
        If the method returns something else, or not the named arrays that it was sent.
    """
    method, context, known = prepare(data, settings, round_config, state, device)
    fitted = method.fit(model, context, round_config, known)
    if not isinstance(fitted, FitResult):  # a method of the user's own
        raise ValueError(f"fit must return a FitResult, got {type(fitted).__name__}")
    arrays = returned(settings.method.name, round_config.arrays, fitted.arrays)
    return _with_loss(replace(fitted, arrays=arrays, networks=tuple(round_config.networks)), context.objective.loss)


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
    method, context, known = prepare(data, settings, round_config, state, device)
    return _with_loss(method.answer(model, context, round_config, known), context.objective.loss)


def prepare(
    data: ClientData, settings: Settings, round_config: RoundConfig, state: State | None, device: torch.device
) -> tuple[ClientMethod, TrainContext, State]:
    """Seed all generators for a client's round, and return its method with what it works with and the method's state.

    Raises
    ------
    PluginError
        If the method or the loss is unknown, or an argument does not fit.
    """
    seed, client, server_round = round_config.stream
    seed_everything(seed, "client", client, server_round)  # dropout, and what plug-ins draw
    method = METHODS.build(settings.method.name, settings.method.args)
    loss, counts = settings.loss, torch.from_numpy(data.class_counts())
    objective = losses.build(loss.name, data.num_classes, loss.args, preset=loss.preset, class_counts=counts)
    objective = warmed_up(objective, settings, server_round)
    trainer = Trainer(load_task(settings.task), settings.train, device)
    context = TrainContext(trainer, objective, to_device(data, device), data.num_classes)
    own = _without_loss(state, objective.loss)
    return method, context, method.init_state(data) if own is None else own


@torch.no_grad()
def _without_loss(state: State | None, loss: losses.Loss) -> State | None:
    """Give the loss what it has learned so far and return the rest of the state, None if only that was kept."""
    kept = {name: array for name, array in (state or {}).items() if name.startswith(OF_LOSS)}
    for name, parameter in loss.parameters().items():
        if f"{OF_LOSS}{name}" in kept:
            parameter.copy_(torch.from_numpy(kept[f"{OF_LOSS}{name}"]))
    if state is None or len(state) == len(kept) > 0:
        return None
    return {name: array for name, array in state.items() if name not in kept}


def _with_loss(result: FitResult, loss: losses.Loss) -> FitResult:
    learned = {f"{OF_LOSS}{name}": value.detach().cpu().numpy() for name, value in loss.parameters().items()}
    if not learned:
        return result
    return replace(result, state={**result.state, **learned})
