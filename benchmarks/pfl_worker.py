"""pfl-research as a peer: its own simulation trains the users of a file, as often as a line comes in.

It runs in a process of its own, whose Python has the packages ``pfl`` and ``torch`` and need not have ours. The file
(.npz) holds ``images`` (users, n, C, H, W) float32, ``labels`` (users, n) and the weights, as ``weight:`` and a name;
the second argument is JSON: the network's layers, batch_size, rate, threads. Each line of the input is a path, where
the weights of the round are written; the answer is a line of JSON with the examples and the seconds that it took.
"""

import json
import sys
import time
from types import MethodType
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByUser
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.common_types import Population
from pfl.context import CentralContext
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn import functional as F

PREFIX = "weight:"


def network(layers: list[tuple[str, dict[str, Any]]], weights: dict[str, np.ndarray]) -> nn.Module:
    """Build the network, with the two methods that pfl asks for."""

    def loss(self: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.train()(images), labels)

    def metrics(self: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Weighted]:
        with torch.no_grad():
            return {"loss": Weighted(F.cross_entropy(self(images), labels, reduction="sum").item(), len(labels))}

    model = nn.Sequential(*(getattr(nn, kind)(**options) for kind, options in layers))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.loss, model.metrics = MethodType(loss, model), MethodType(metrics, model)  # type: ignore[assignment]
    return model


class Round:
    """A round of all users with their own data, each an epoch; the model is put back before the next one."""

    def __init__(self, path: str, layers: list[tuple[str, dict[str, Any]]], batch_size: int, rate: float) -> None:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        weights = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
        self.users, self.examples = len(labels), labels.numel()
        net = network(layers, weights)
        self.model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), 1.0))
        self.start = self.model.get_parameters()
        turn = iter(range(sys.maxsize))
        data = FederatedDataset(lambda user: Dataset([images[user], labels[user]]), lambda: next(turn) % self.users)
        self.backend = SimulatedBackend(data, data, [WeightByUser()])
        hyper = NNTrainHyperParams(local_learning_rate=rate, local_num_epochs=1, local_batch_size=batch_size)
        options = NNAlgorithmParams(
            central_num_iterations=sys.maxsize, evaluation_frequency=0, train_cohort_size=self.users, val_cohort_size=0
        )
        self.algorithm = FederatedAveraging()
        self.context = CentralContext(0, False, self.users, Population.TRAIN, options, hyper, seed=0)

    def play(self) -> dict[str, float]:
        """Train all users and return the examples and the seconds, of the clock and of CPU time."""
        cpu, clock = time.process_time(), time.perf_counter()
        self.update, _ = self.backend.gather_results(
            model=self.model, training_algorithm=self.algorithm, central_context=self.context
        )
        return {"examples": self.examples, "cpu": time.process_time() - cpu, "seconds": time.perf_counter() - clock}

    def write(self, path: str) -> None:
        """Write the weights that the round leads to."""
        self.algorithm.process_aggregated_statistics(self.context, None, self.model, self.update)  # type: ignore[arg-type]
        state = self.model.pytorch_model.state_dict()
        np.savez(path, **{name: tensor.detach().numpy() for name, tensor in state.items()})
        self.model.set_parameters(self.start)


def main() -> None:
    """Answer lines until there are no more."""
    path, options = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(options.pop("threads"))
    torch.manual_seed(1)
    play = Round(path, **options)
    for line in sys.stdin:
        found = play.play()
        play.write(line.strip())
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
