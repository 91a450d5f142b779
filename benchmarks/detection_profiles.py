"""Loss profiles for the detection benchmark: what clients answer after a warm-up with logit-adjusted cross-entropy."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import Strategy

from benchmarks.in_process import LocalClients
from client_app.profile import class_losses
from server_app.evaluation import CentralEvaluation
from server_app.roster import Client, Roster
from server_app.strategy import build_strategy
from strategies.updates import to_numpy, to_record
from tasks.config import Flat, parse
from tasks.seeds import seed_everything
from tasks.settings import Settings
from tasks.shares import client_share
from tasks.wire import Arrays

TASKS: Mapping[str, Flat] = {
    "digits": {"model.name": "mlp", "num-server-rounds": 10, "train.batch-size": 16},
    "cifar-10": {
        "task.args": "train_samples = 8000, test_samples = 1000",
        "model.name": "mlp",
        "model.args": "hidden = 128",
        "num-server-rounds": 10,
        "train.batch-size": 32,
        "train.learning-rate": 0.02,
        "train.augment": False,
    },
}
"""What a CPU can do in a minute or two: CIFAR-10 has 400 images a client then, and a network that is right on 40 %."""
PARTITIONS: Mapping[str, Flat] = {
    "iid": {"partition.name": "iid", "partition.args": ""},
    "dirichlet-1.0": {"partition.args": "alpha = 1.0, min_size = 10"},
    "dirichlet-0.5": {"partition.args": "alpha = 0.5, min_size = 10"},
}
NOISES: Mapping[str, Flat] = {
    "clean": {"noise.name": "none"},
    "symmetric 0-0.4": {"noise.law-args": "max = 0.4"},
    "symmetric 0-0.8": {"noise.law-args": "max = 0.8"},
    "pair-flip 0-0.4": {"noise.name": "pair-flip", "noise.law-args": "max = 0.4"},
    "bernoulli 0.4/0.5": {"noise.law": "bernoulli", "noise.law-args": "rho = 0.4, tau = 0.5"},
    "bernoulli 0.2/0.3": {"noise.law": "bernoulli", "noise.law-args": "rho = 0.2, tau = 0.3"},
}
COMMON: Flat = {
    "loss.name": "la-ce",
    "strategy.aggregator": "geometric-median",
    "train.epochs": 2,
    "train.threads": 1,
    "train.device": "cpu",
}


@dataclass(frozen=True)
class Case:
    """What decides a set of profiles."""

    task: str
    clients: int
    partition: str
    noise: str
    seed: int

    def settings(self) -> Settings:
        """Return the settings of the warm-up."""
        chosen = TASKS[self.task] | PARTITIONS[self.partition] | NOISES[self.noise]
        own: Flat = {"seed": self.seed, "task.name": self.task, "federation.num-clients": self.clients}
        return parse(COMMON | chosen | own)

    def file(self) -> str:
        """Return the name of the file in which the profiles are kept."""
        return "_".join(str(part).replace(" ", "-").replace("/", "-") for part in astuple(self)) + ".npz"


@dataclass(frozen=True)
class Outcome:
    """Losses and counts (N, K), the true noise rates (N,), and the warm model's accuracy on clean test data."""

    losses: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    rates: npt.NDArray[np.float64]
    accuracy: float

    def wanted(self) -> npt.NDArray[np.bool_]:
        """Tell who should be called noisy: in a grid of rates the half above the median, else whoever has any."""
        threshold = np.median(self.rates) if np.count_nonzero(self.rates) > 0.75 * len(self.rates) else 0.0
        return np.asarray(self.rates > threshold)


def profiles(case: Case, folder: Path) -> Outcome:
    """Return the profiles of a case, from ``folder`` if they are there, else by playing the warm-up."""
    path = folder / case.file()
    if not path.exists():
        outcome = warm_up(case.settings())
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **vars(outcome))
    with np.load(path) as kept:
        return Outcome(kept["losses"], kept["counts"], kept["rates"], float(kept["accuracy"]))


def warm_up(settings: Settings) -> Outcome:
    """Play all rounds in this process and ask every client for its profile."""
    evaluation = CentralEvaluation(settings)
    arrays, clients = evaluation.initial_arrays(), LocalClients(settings, evaluation)
    shares = [client_share(settings, client) for client in clients.get_node_ids()]
    roster = Roster(tuple(Client(number, number, len(share.data)) for number, share in enumerate(shares)))
    strategy = build_strategy(settings, roster, evaluation.buffers())
    for server_round in range(1, settings.num_server_rounds + 1):
        arrays = _round(strategy, clients, arrays, server_round, settings.seed)
    accuracy = evaluation.measure(arrays)["accuracy"]  # this also loads the arrays into the model
    model, batch = evaluation.model, settings.evaluate.batch_size
    answers = [class_losses(model, evaluation.task, share.data, batch, evaluation.device) for share in shares]
    losses, counts = (np.stack(tables) for tables in zip(*answers, strict=True))
    return Outcome(losses, counts, np.array([share.noise_rate for share in shares]), accuracy)


def _round(strategy: Strategy, clients: LocalClients, arrays: Arrays, server_round: int, seed: int) -> Arrays:
    seed_everything(seed, "round", server_round)
    clients.server_round = server_round
    messages = strategy.configure_train(server_round, to_record(arrays), ConfigRecord(), clients)
    combined, _ = strategy.aggregate_train(server_round, clients.send_and_receive(messages))
    return arrays if combined is None else to_numpy(combined)
