"""Loss profiles for the detection benchmark: what clients answer after a warm-up with logit-adjusted cross-entropy."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord

from benchmarks.in_process import Federation
from strategies.detection import mean_profiles
from strategies.noise_partition import NoisePartition
from strategies.validation import to_record
from tasks.client_data import client_dataset
from tasks.config import Flat, parse
from tasks.settings import Settings

TASKS: Mapping[str, Flat] = {
    "digits": {"model.name": "mlp", "train.batch-size": 16},
    "cifar-10": {
        "task.args": "train_samples = 8000, test_samples = 1000",
        "model.name": "mlp",
        "model.args": "hidden = 128",
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
    "symmetric 0-0.4": {"noise.rates-args": "max = 0.4"},
    "symmetric 0-0.8": {"noise.rates-args": "max = 0.8"},
    "pair-flip 0-0.4": {"noise.name": "pair-flip", "noise.rates-args": "max = 0.4"},
    "bernoulli 0.4/0.5": {"noise.rates": "bernoulli", "noise.rates-args": "rho = 0.4, tau = 0.5"},
    "bernoulli 0.2/0.3": {"noise.rates": "bernoulli", "noise.rates-args": "rho = 0.2, tau = 0.3"},
}
COMMON: Flat = {
    "loss.name": "la-ce",
    "strategy.name": "noise-partition",
    "strategy.aggregator": "geometric-median",
    "train.epochs": 2,
    "train.threads": 1,
    "train.device": "cpu",
    "evaluate.validation": 0.0,
}


@dataclass(frozen=True)
class Case:
    """What decides a set of profiles.

    ``fraction`` is the share of the clients that train in a round, in turn or drawn at random. With ``estimate_shares``
    clients weigh predictions by the class shares that they estimate.
    """

    task: str
    clients: int
    partition: str
    noise: str
    seed: int
    rounds: int = 10
    fraction: float = 1.0
    round_robin_sampling: bool = True
    estimate_shares: bool = False

    def settings(self) -> Settings:
        """Return the settings of the warm-up."""
        chosen = TASKS[self.task] | PARTITIONS[self.partition] | NOISES[self.noise]
        in_turn, estimate = (str(flag).lower() for flag in (self.round_robin_sampling, self.estimate_shares))
        args = f"warmup_rounds = {self.rounds}, round_robin_sampling = {in_turn}, estimate_shares = {estimate}"
        own: Flat = {
            "seed": self.seed,
            "task.name": self.task,
            "federation.num-clients": self.clients,
            "federation.fraction-train": self.fraction,
            "num-server-rounds": self.rounds,
            "strategy.args": args,
        }
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
    with np.load(path, allow_pickle=False) as kept:
        return Outcome(kept["losses"], kept["counts"], kept["rates"], float(kept["accuracy"]))


def warm_up(settings: Settings) -> Outcome:
    """Play all rounds in this process; the clients are asked as the strategy does."""
    federation = Federation(settings)
    last = list(federation.rounds(settings.num_server_rounds))[-1]
    strategy, clients = federation.strategy, federation.clients
    assert isinstance(strategy, NoisePartition)
    strategy.configure_train(settings.num_server_rounds + 1, to_record(federation.arrays), ConfigRecord(), clients)
    _, losses, counts = mean_profiles(strategy.profiles)
    rates = [client_dataset(settings, client).noise_rate for client in clients.get_node_ids()]
    return Outcome(losses, counts, np.array(rates), last["accuracy"])
