"""Personal model: the final model of a run, a part of it tuned on a site's own examples.

``head`` trains the last layer on features that all sites have learned together (FedPer: Arivazhagan et al., 2019;
FedRep: Collins et al., ICML 2021), ``norm`` the normalisation layers, whose statistics and scales differ most between
sites (FedBN: Li et al., ICLR 2021), and ``all`` the whole model (fine-tuning, the baseline that Cheng, Chadha, Duchi,
Fine-tuning in federated learning, 2021, find hard to beat). What is not tuned stays as it is, running statistics too.

Whether it helped is measured on examples that were held out from the first round on, and on which nothing was tuned.
"""

from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from client_app.local import train_locally
from client_app.methods import RoundConfig
from tasks.base import ClientData, DataError, Task
from tasks.client_data import load_task
from tasks.features import last_layer
from tasks.frozen_parts import freeze
from tasks.settings import MethodSettings, Settings

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
SLOWER = 0.1  # of the run's learning rate: the model is nearly where it should be


def tuned_parameters(model: nn.Module, part: str, task: Task) -> frozenset[str]:
    """Return the names of the parameters that are tuned; ``part`` is norm, head or all. Frozen ones are not among them.

    Raises
    ------
    DataError
        If the model has no such part, or it is frozen (``model.freeze``).
    """
    named = dict(model.named_parameters())
    if part == "head":
        kind = torch.float32 if task.has_smooth_inputs else torch.int64
        layer = last_layer(model.eval(), torch.zeros(2, *task.input_shape, dtype=kind))
        chosen = {id(parameter) for parameter in layer.parameters()}
    elif part == "norm":
        norms = [module for module in model.modules() if isinstance(module, NORMS)]
        chosen = {id(parameter) for module in norms for parameter in module.parameters(recurse=False)}
    else:
        chosen = {id(parameter) for parameter in named.values()}
    found = frozenset(name for name, value in named.items() if id(value) in chosen and value.requires_grad)
    if not found:
        raise DataError(
            "the model has no such parameters that may be trained; choose another part, or let model.freeze spare them"
        )
    return found


def keep_others(model: nn.Module, part: str, task: Task) -> None:
    """Freeze all but a part of the model, in place; see :func:`tuned_parameters`."""
    tuned = tuned_parameters(model, part, task)
    others = [name for name, value in model.named_parameters() if value.requires_grad and name not in tuned]
    if others:
        freeze(model, ", ".join(others))


def tuning_rate(settings: Settings) -> float:
    """Return the learning rate of tuning."""
    return settings.personal.learning_rate or SLOWER * settings.train.learning_rate


def tune(model: nn.Module, data: ClientData, settings: Settings, rounds: int, device: torch.device) -> None:
    """Tune the model on a site's examples, in place, by the loss of the run and plain training.

    ``rounds`` is how many the run has had: what is drawn follows from the number after it.
    """
    keep_others(model.cpu(), settings.personal.tune, load_task(settings.task))
    rate = tuning_rate(settings)
    train = replace(settings.train, epochs=settings.personal.epochs, learning_rate=rate, schedule="constant")
    own = replace(settings, train=train, method=MethodSettings())
    config = RoundConfig(rounds + 1, rate, (settings.seed, data.client, rounds + 1))
    train_locally(model.to(device), data, own, config, None, device)
