"""Strategies by name: Winnow's own, Flower's stock ones, and anything by import path."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flwr.serverapp import strategy as stock

from client_app.trainer import pick_device
from server_app.privacy import is_central
from server_app.registration import Registration
from server_app.stock import STOCK, stock_name
from strategies.aggregators import build_aggregator
from strategies.base import STRATEGIES, FlowerStrategyAdapter, UpdateStrategy
from strategies.fedcorr import FedCorr
from strategies.fedned import FedNed
from strategies.fedrn import FedRN
from strategies.noise_partition import NoisePartition
from strategies.privacy import PrivateStrategy
from strategies.robust import RobustStrategy
from strategies.server_optimizers import build_server_optimizer
from strategies.spool import Spool, half_of_memory
from tasks.extra_arrays import ExtraArray
from tasks.protocol import Mode
from tasks.public_examples import PublicExamples
from tasks.seeds import seed_noise
from tasks.settings import FederationSettings, Settings
from tasks.validation_split import evaluating_share

__all__ = ["STRATEGIES", "FedCorr", "FedNed", "FedRN", "NoisePartition", "RobustStrategy", "build_strategy", "sampled"]

for _name, _papers in STOCK.items():  # Winnow's own are registered where they are defined
    STRATEGIES.register(stock_name(_name), *_papers)(getattr(stock, _name))


def build_strategy(
    settings: Settings,
    registration: Registration | None = None,
    buffers: tuple[str, ...] = (),
    mode: Mode = Mode.DEPLOYMENT,
    scratch: Path | None = None,
    extra_arrays: Sequence[ExtraArray] = (),
) -> UpdateStrategy[Any]:
    """Build the configured strategy; one that reads messages is made one that combines validated updates.

    Updates that do not fit into ``federation.memory`` lie in a file in the folder ``scratch``. ``extra_arrays`` are
    what the client method exchanges beside the model.
    Privacy noise follows from the seed in a simulation, and from the operating system where nodes are real.

    Raises
    ------
    PluginError
        If the strategy or its aggregator is unknown, or an argument does not fit.
    """
    federation, choice = settings.federation, settings.strategy
    available = len(registration.clients) if registration else federation.num_clients
    examples = registration.examples() if registration else None
    context: dict[str, Any] = {
        "fraction_train": federation.fraction_train,
        "fraction_evaluate": evaluating_share(settings),
        "min_train_nodes": min(federation.min_replies, available),
        "min_evaluate_nodes": 1 if evaluating_share(settings) else 0,
        "min_available_nodes": 1,
        "min_replies": federation.min_replies,
        "seed": settings.seed,
        "weighting": choice.weighting,
        "buffers": buffers,
        "examples": examples,
        "aggregator": build_aggregator(choice.aggregator, choice.aggregator_args, choice.pre_aggregators),
        "spool": Spool(memory_of(federation), scratch),
        "timeout": federation.round_timeout,
        "extra_arrays": extra_arrays,
        "public_examples": PublicExamples(settings, mode, partial(pick_device, settings.train.device)),
        "server_optimizer": build_server_optimizer(choice.server_optimizer, choice.server_optimizer_args),
    }
    strategy = STRATEGIES.build(choice.name, choice.args, **context)
    if isinstance(strategy, RobustStrategy) and is_central(settings.privacy):
        clients = sampled(federation, available)
        noise = partial(seed_noise, mode is Mode.SIMULATION, settings.seed, "privacy")
        return PrivateStrategy(strategy, settings.privacy, clients, noise, examples)
    if isinstance(strategy, UpdateStrategy):
        return strategy
    return FlowerStrategyAdapter(strategy, federation.min_replies, examples)


def memory_of(federation: FederationSettings) -> int:
    """Return how many bytes the updates of a round may take in memory."""
    return round(federation.memory * 1e9) or half_of_memory()


def sampled(federation: FederationSettings, available: int | None = None) -> int:
    """Return how many clients train in a round, if all are there or only those ``available``."""
    return max(1, round(federation.fraction_train * (available or federation.num_clients)))
