"""A small run for every client method: after the first round each is asked to train clean and noisy clients.

A method that is registered is in it; one that needs a strategy or a loss of its own has a line in ``OWN``.
"""

from collections.abc import Collection
from typing import Any

import tomli_w

from client_app.methods import METHODS

CLIENTS = 4
SMALL: dict[str, Any] = {
    "num-server-rounds": 2,
    "federation.num-clients": CLIENTS,
    "partition.args": "alpha = 5.0, min_size = 150",
    "noise.rates": "groups",
    "noise.rates-args": "groups = [{ clients = 2, rate = 0.0 }, { clients = 2, rate = 0.7 }]",
    "model.name": "digits-cnn",
    "loss.name": "ce",
    "strategy.name": "noise-partition",  # whose detector always finds two groups
    "strategy.args": 'warmup_rounds = 1, detector = "official", detector_args = "fits = 1"',
    "train.epochs": 1,
    "train.batch-size": 128,
    "train.threads": 1,
    "train.device": "cpu",
}
OWN: dict[str, dict[str, Any]] = {
    "fedcorr": {
        "strategy.name": "fedcorr",
        "strategy.args": f"iterations = 1, clients_per_step = {CLIENTS}, finetune_rounds = 0",
    },
    "fedned": {
        "strategy.name": "fedned",
        "strategy.args": "warmup_rounds = 0, threshold = 1.0, passes = 2, steps = 3",
    },
    "fednoro": {"loss.name": "la-ce"},
}
METHOD_NAMES = [entry.name for entry in METHODS.entries()]


def changes(method: str) -> dict[str, Any]:
    """Return what is different from ``SMALL`` in a method's run."""
    return {"method.name": method, **OWN.get(method, {})}


def variants(shared: Collection[str] = tuple(SMALL)) -> str:
    """Return the runs of all methods as variants of one, whose own settings hold ``SMALL`` for the ``shared`` keys."""
    own = {key: value for key, value in SMALL.items() if key not in shared}
    return "".join(f"{name} = {{ {_inline(own | changes(name))} }}\n" for name in METHOD_NAMES)


def _inline(values: dict[str, Any]) -> str:
    return ", ".join(tomli_w.dumps({key: value}).strip().replace(f'"{key}"', key, 1) for key, value in values.items())
