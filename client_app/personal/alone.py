"""Training alone: the model that a site would have without the others, by the same number of rounds.

It starts from the weights from which the federation started, and the site does all its rounds one after the other on
its own model: the same loss, optimizer, passes and learning rates as in the run, so the budget is the same. What the
methods of a run get from others cannot be had alone: such a method gives way to plain training (``sgd``).
"""

from dataclasses import replace

import torch
from torch import nn

from client_app.local import train_locally
from client_app.methods import METHODS, RoundConfig, State
from client_app.methods.base import ClientMethod
from client_app.trainer import learning_rate
from tasks.base import ClientData
from tasks.fresh_model import initial_model
from tasks.settings import MethodSettings, Settings

PLAIN = "sgd"


def needs_others(method: ClientMethod) -> bool:
    """Tell whether a method gets anything from the server beside the model: roles, questions, arrays, other models."""
    traits = (method.reads_role, method.answers_questions, method.exchanges_arrays, method.uses_neighbours)
    return any(traits)


def settings_alone(settings: Settings) -> Settings:
    """Return the settings by which the site trains alone."""
    method = METHODS.build(settings.method.name, settings.method.args)
    return replace(settings, method=MethodSettings(PLAIN)) if needs_others(method) else settings


def train_alone(
    data: ClientData, settings: Settings, rounds: int, planned: int, device: torch.device
) -> tuple[nn.Module, State]:
    """Return the model that the site would have alone, and what its method keeps.

    Parameters
    ----------
    data
        What the site trained on in the run.
    settings
        Those of the run; see :func:`settings_alone`.
    rounds, planned
        How many rounds were done, and how many were planned, by which learning rates go.

    Raises
    ------
    DataError
        If the run started from a file of weights that is not here.
    """
    own = settings_alone(settings)
    number = METHODS.build(own.method.name, own.method.args).networks
    model, *others = (initial_model(settings, one).to(device) for one in range(1, number + 1))
    state: State | None = None
    for server_round in range(1, rounds + 1):
        config = RoundConfig(
            server_round,
            learning_rate(settings.train, server_round, planned),
            (settings.seed, data.client, server_round),
            networks=tuple(others),
        )
        state = train_locally(model, data, own, config, state, device).state
    return model, state or {}
