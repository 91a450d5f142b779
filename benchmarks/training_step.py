"""Step of local training against a plain PyTorch loop: CPU seconds of networks, losses and methods, in turn.

    python -m benchmarks.training_step --networks digits-cnn linear --losses ce fsanl --repeats 7

The plain loop is the floor: shuffled batches of inputs that were prepared before, the network, torch's cross-entropy,
torch's own clipping and optimizer, and nothing else. Ours is the product's trainer with all that it does in a round:
preparation, losses with their penalties, checks, what is reported; augmentation only with --augment. Both take turns in
this process, on one thread. Shown is the median of the ratios of CPU seconds, with the smallest and the largest.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app import losses
from client_app.methods import METHODS, RoundConfig, TrainContext
from client_app.trainer import LocalData, Trainer
from tasks.base import Task
from tasks.images import Cifar10, Digits
from tasks.models import MODELS
from tasks.seeds import seed_everything
from tasks.settings import TrainSettings

CPU, RATE, EXAMPLES = torch.device("cpu"), 0.01, 480
NETWORKS: dict[str, tuple[type[Task], tuple[int, ...], int]] = {
    "digits-cnn": (Digits, (1, 8, 8), 16),
    "linear": (Digits, (1, 1, 1280), 64),
    "thin-cnn8": (Cifar10, (3, 32, 32), 64),
    "cnn8": (Cifar10, (3, 32, 32), 50),
}
"""Task, shape of an example and size of a batch for each network."""


class Case:
    """One network on random examples, trained by us and by a plain loop."""

    def __init__(self, network: str, loss: str, method: str, options: TrainSettings) -> None:
        kind, shape, batch_size = NETWORKS[network]
        self.task, self.batch_size, self.options = kind(), batch_size, options
        draws = torch.Generator().manual_seed(0)
        features = torch.randint(16, (EXAMPLES, *shape), generator=draws, dtype=torch.uint8)
        self.data = LocalData(features, torch.randint(10, (EXAMPLES,), generator=draws))
        self.inputs = self.task.prepare(features)
        self.build = lambda: MODELS.build(network, "", num_classes=10, input_shape=shape)
        self.objective = losses.build(loss, 10, "", class_counts=self.data.labels.bincount(minlength=10))
        self.method = METHODS.build(method, "")

    def ours(self) -> None:
        """Train for some epochs as a client does."""
        seed_everything(1, "benchmark")
        context = TrainContext(Trainer(self.task, self.options, CPU), self.objective, self.data, 10)
        config = {"noise-level": 0.2, "rounds-since-detection": 1}
        self.method.fit(self.build(), context, RoundConfig(1, RATE, (1, 0, 1), "noisy", config), {})

    def plain(self) -> None:
        """Train for as many epochs as people write it."""
        seed_everything(1, "benchmark")
        model, size = self.build().train(), self.options.batch_size
        optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=self.options.momentum)
        for _ in range(self.options.epochs):
            for part in torch.randperm(EXAMPLES).split(size):
                optimizer.zero_grad()
                loss = self._loss(model, part)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), self.options.clip_norm)
                optimizer.step()

    def _loss(self, model: nn.Module, part: Tensor) -> Tensor:
        inputs, labels = self.inputs[part], self.data.labels[part]
        if self.options.precision == "bfloat16":
            with torch.autocast("cpu", torch.bfloat16):
                logits: Tensor = model(inputs)
            return F.cross_entropy(logits.float(), labels)
        return F.cross_entropy(model(inputs), labels)


def cpu_seconds(act: Callable[[], object]) -> float:
    """Return the CPU seconds of this process, all its threads, that a call takes."""
    started = time.process_time()
    act()
    return time.process_time() - started


def measure(case: Case, repeats: int) -> tuple[float, list[float]]:
    """Return the median of our microseconds for a step, and the sorted ratios to the plain loop."""
    case.ours(), case.plain()
    pairs = [(cpu_seconds(case.ours), cpu_seconds(case.plain)) for _ in range(repeats)]
    steps = case.options.epochs * -(-EXAMPLES // case.options.batch_size)
    return 1e6 * median(ours for ours, _ in pairs) / steps, sorted(ours / plain for ours, plain in pairs)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["digits-cnn", "linear", "thin-cnn8"])
    parser.add_argument("--losses", nargs="+", default=["ce", "anl-ce", "fsanl"])
    parser.add_argument("--methods", nargs="+", default=["sgd"])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | method | loss | us a step | over the plain loop | from | to |\n|---|---|---|---|---|---|---|")
    for network in args.networks:
        options = TrainSettings(
            epochs=args.epochs, batch_size=NETWORKS[network][2], precision=args.precision, augment=args.augment
        )
        for method in args.methods:
            for loss in args.losses:
                step, ratios = measure(Case(network, loss, method, options), args.repeats)
                print(f"| {network} | {method} | {loss} | {step:.0f} | {median(ratios):.3f} |", end="")
                print(f" {ratios[0]:.3f} | {ratios[-1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
