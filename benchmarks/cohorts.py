"""Cohorts: CPU seconds of clients one after the other, over those of the same clients side by side.

    python -m benchmarks.cohorts --repeats 3
    python -m benchmarks.cohorts round --clients 100

Both ways are played in turn in one process with one thread, on the same examples; the least of each counts. CPU
seconds, not the clock, so that other work on the machine matters little. ``round`` plays whole rounds of a federation,
with messages, aggregation and what ``auto`` spends on measuring.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.in_process import Federation
from benchmarks.training_step import cpu_seconds
from client_app.cohorts.training import Member, train_together
from client_app.losses import build
from client_app.methods import METHODS, PlannedMethod, RoundConfig, TrainContext
from client_app.trainer import Trainer, to_device
from tasks.base import ClientData, Examples, Task
from tasks.images import Digits
from tasks.models import MODELS
from tasks.settings import (
    EvaluateSettings,
    FederationSettings,
    LossSettings,
    ModelSettings,
    NoiseSettings,
    PartitionSettings,
    Settings,
    TaskSettings,
    TrainSettings,
)

SIZES = (1, 2, 5, 10, 25, 50, 100)
CPU = torch.device("cpu")


class Features(Digits):
    """Rows of 1,280 features in half precision, as an encoder gives them; half of each row says which class it is."""

    input_shape = (1280,)
    default_model = "linear"

    def __init__(self, count: int = 10_000) -> None:
        self._count = count

    def examples(self, count: int, seed: int) -> Examples:
        """Return examples made from a seed."""
        draws = torch.Generator().manual_seed(seed)
        labels = torch.randint(10, (count,), generator=draws)
        centres = torch.randn(10, *self.input_shape, generator=torch.Generator().manual_seed(0))
        return Examples(
            (centres[labels] + torch.randn(count, *self.input_shape, generator=draws)).half(), labels.numpy()
        )

    def train_examples(self) -> Examples:
        """Return the examples to learn from."""
        return self.examples(self._count, 1)

    def test_examples(self) -> Examples:
        """Return the examples of the test."""
        return self.examples(100, 2)

    def prepare(self, features: Tensor) -> Tensor:
        """Return the features scaled as those of an encoder are."""
        return F.layer_norm(features.float(), self.input_shape)


@dataclass(frozen=True)
class Case:
    """A network on a task, with so many examples at each client and in each batch."""

    name: str
    task: Task
    model: str
    examples: int
    batch_size: int
    epochs: int


CASES = (
    Case("linear head", Features(), "linear", 500, 64, 5),
    Case("mlp", Features(), "mlp", 500, 64, 2),
    Case("digits-cnn", Digits(), "digits-cnn", 72, 16, 5),
)


def members(case: Case, count: int, loss: str, method: str = "sgd") -> list[Member]:
    """Return clients that have their first round before them."""
    torch.manual_seed(0)
    start = MODELS.build(case.model, "", num_classes=10, input_shape=case.task.input_shape)
    options = TrainSettings(epochs=case.epochs, batch_size=case.batch_size, learning_rate=0.01)
    return [_member(case, client, copy.deepcopy(start), options, loss, method) for client in range(count)]


def _member(case: Case, client: int, model: torch.nn.Module, options: TrainSettings, loss: str, method: str) -> Member:
    whole = case.task.examples(case.examples, client) if isinstance(case.task, Features) else case.task.train_examples()
    own = whole.take(np.arange(case.examples * client, case.examples * (client + 1)) % len(whole))
    data = ClientData(client, own.features, own.labels, np.arange(case.examples), 10)
    objective = build(loss, 10, class_counts=data.class_counts())
    context = TrainContext(Trainer(case.task, options, CPU), objective, to_device(data, CPU), 10)
    chosen, stream = METHODS.build(method, ""), (1, client, 1)
    assert isinstance(chosen, PlannedMethod)
    plan = chosen.plan(model, context, RoundConfig(1, options.learning_rate, stream), {})
    return Member(model, context.trainer, plan.local, plan.batch_loss, options.learning_rate, stream)


def one_by_one(clients: Sequence[Member]) -> None:
    """Train clients one after the other."""
    for own in clients:
        own.trainer.run(own.model, own.local, own.batch_loss, own.rate, own.stream)


def compare(case: Case, count: int, loss: str, repeats: int) -> tuple[float, float]:
    """Return the CPU seconds of a client's step, one after the other and side by side; the least of each.

    One after the other a few clients stand for all: each takes as long as the next.
    """
    found: tuple[list[float], list[float]] = ([], [])
    ways = ((one_by_one, min(count, 3)), (train_together, count))
    for _ in range(repeats):
        for times, (train, clients) in zip(found, ways, strict=True):
            chosen = members(case, clients, loss)
            steps = sum(own.steps for own in chosen)
            times.append(cpu_seconds(lambda train=train, chosen=chosen: train(chosen)) / steps)
    return min(found[0]), min(found[1])


def rounds(model: str, clients: int, cohort: str, loss: str) -> list[float]:
    """Return the CPU seconds of each of four rounds of a federation in this process."""
    task = (
        TaskSettings("benchmarks.cohorts:Features", f"count = {500 * clients}")
        if model != "digits-cnn"
        else TaskSettings()
    )
    settings = Settings(
        num_server_rounds=4,
        federation=FederationSettings(num_clients=clients),
        task=task,
        model=ModelSettings(model),
        partition=PartitionSettings("iid", ""),
        noise=NoiseSettings("symmetric", "", "constant", "rate = 0.3"),
        loss=LossSettings(loss),
        train=TrainSettings(
            learning_rate=0.01, batch_size=16 if model == "digits-cnn" else 64, threads=1, device="cpu", cohort=cohort
        ),
        evaluate=EvaluateSettings(every=1000, validation=0.0),
    )
    settings = replace(settings, strategy=replace(settings.strategy, aggregator="mean"))
    play = Federation(settings).rounds(first_measured=1000)
    return [cpu_seconds(lambda: next(play)) for _ in range(4)]


def print_rounds(given: argparse.Namespace) -> None:
    """Print the CPU seconds of rounds, one after the other and in cohorts."""
    for model in (case.model for case in CASES if case.name in given.cases):
        for loss in given.losses:
            for cohort in ("off", "auto"):
                times = rounds(model, given.clients, cohort, loss)
                print(model, loss, cohort, *(f"{seconds:.2f}" for seconds in times), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("steps", "round"), default="steps")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="clients side by side")
    parser.add_argument("--losses", nargs="+", default=("ce", "fsanl"))
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clients", type=int, default=100, help="of a round")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "round":
        return print_rounds(given)
    print("| network, loss | alone, us a step |", *(f"{size} |" for size in given.sizes))
    print("|---|" + "---|" * (1 + len(given.sizes)))
    for case in (case for case in CASES if case.name in given.cases):
        for loss in given.losses:
            found = [compare(case, size, loss, given.repeats) for size in given.sizes]
            ratios = (f"{alone / together:.1f} |" for alone, together in found)
            print(f"| {case.name}, {loss} | {1e6 * min(alone for alone, _ in found):.0f} |", *ratios, flush=True)
    return None


if __name__ == "__main__":
    main()
