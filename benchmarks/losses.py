"""Speed of the losses, in one run on this machine: what sharing work saves, and what a robust loss adds to a step.

    python -m benchmarks.losses --models digits-cnn cnn8 --output losses.csv

All ways of a group take turns, and a time is the fastest turn. ``ratio`` is the time over that of the first way of
its group, so it can be compared between machines. Images are random: no data is needed.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.losses import L1, Objective, RegularizerInput, build
from client_app.optimizers import make_optimizer
from client_app.trainer import Batch, GivenLabels, Trainer, pick_device
from server_app.cli.config import path_argument
from tasks.base import Task
from tasks.images import Cifar10, Digits
from tasks.settings import TrainSettings

Call = Callable[[], Any]

TASKS: Mapping[str, Callable[[], Task]] = {"digits-cnn": Digits, "cnn8": Cifar10}
LOSSES = ("ce", "anl-ce", "fsanl")


@dataclass(frozen=True)
class Row:
    """One measured way: ``ratio`` is its time over that of the first way in the same ``group``."""

    group: str
    way: str
    microseconds: float
    ratio: float


def plain_anl_ce(logits: Tensor, labels: Tensor, alpha: float = 5.0, beta: float = 5.0) -> Tensor:
    """Return the mean of alpha NCE + beta NNCE for (N, K) and (N,), each part on its own as the formulas read."""
    one_hot = F.one_hot(labels, logits.shape[1])
    log_probs = F.log_softmax(logits, dim=1)
    active = (one_hot * log_probs).sum(1) / log_probs.sum(1)
    ceiling = -math.log(1e-7)
    distance = ceiling + F.softmax(logits, dim=1).clamp(1e-7, 1).log()
    negative = 1 - (one_hot * distance).sum(1) / distance.sum(1)
    return alpha * active.mean() + beta * negative.mean()


def loss_ways(examples: int, device: torch.device) -> dict[str, Call]:
    """Return forward and backward of ANL-CE without its regularizer, on random logits of 10 classes."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(examples, 10, generator=generator).to(device).requires_grad_()
    labels = torch.randint(10, (examples,), generator=generator).to(device)
    objective = build("anl-ce", num_classes=10)
    return {
        "shared log-softmax": lambda: torch.autograd.grad(objective.data_term(logits, labels), logits),
        "plain": lambda: torch.autograd.grad(plain_anl_ce(logits, labels), logits),
    }


def penalty_ways(model: nn.Module) -> dict[str, Call]:
    """Return forward and backward of the L1 norm of all parameters."""
    parameters = list(model.parameters())

    def python_sum() -> Tensor:
        return torch.stack([parameter.abs().sum() for parameter in parameters]).sum()

    return {
        "multi-tensor": lambda: torch.autograd.grad(L1()(RegularizerInput(model=model)), parameters),
        "sum over parameters": lambda: torch.autograd.grad(python_sum(), parameters),
    }


def step_ways(task: Task, model: nn.Module, batch_size: int, device: torch.device) -> dict[str, Call]:
    """Return a whole training step of each loss, on random images; weights stay where they are (rate almost 0)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(17, (batch_size, *task.input_shape), generator=generator).to(device, torch.uint8)
    labels = torch.randint(task.num_classes, (batch_size,), generator=generator).to(device)
    batch = Batch(torch.arange(batch_size, device=device), images, labels)
    global_parameters = {name: 1.01 * parameter.detach() for name, parameter in model.named_parameters()}
    options = TrainSettings(learning_rate=1e-12)
    trainer = Trainer(task, options, device)
    optimizer = make_optimizer(model, options, options.learning_rate)

    def step(objective: Objective) -> Call:
        batch_loss = GivenLabels(objective, global_parameters)
        return lambda: trainer.step(model, optimizer, batch_loss, batch)

    return {loss: step(build(loss, task.num_classes)) for loss in LOSSES}


def groups(models: Iterable[str], batch_size: int, device: torch.device) -> dict[str, dict[str, Call]]:
    """Return all ways to measure, by group."""
    found = {f"ANL-CE, {batch_size} x 10 logits": loss_ways(batch_size, device)}
    for name in models:
        task = TASKS[name]()
        torch.manual_seed(0)
        model = task.build_model(name, "").to(device).train()
        found[f"L1 of {name}"] = penalty_ways(model)
        found[f"step of {name}, batch {batch_size}"] = step_ways(task, model, batch_size, device)
    return found


def fastest(calls: Mapping[str, Call], seconds: float, device: torch.device) -> dict[str, float]:
    """Return the fewest microseconds of each call; they take turns for as long as ``seconds``, at least 3 times."""
    times = dict.fromkeys(calls, math.inf)
    end = time.perf_counter() + seconds
    turns = 0
    while turns < 3 or time.perf_counter() < end:
        for way, call in calls.items():
            wait(device)
            start = time.perf_counter()
            call()
            wait(device)
            times[way] = min(times[way], 1e6 * (time.perf_counter() - start))
        turns += 1
    return times


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(calls: Mapping[str, Mapping[str, Call]], seconds: float, device: torch.device) -> list[Row]:
    """Measure group after group."""
    rows = []
    for group, ways in calls.items():
        times = fastest(ways, seconds, device)
        first = next(iter(times.values()))
        rows += [Row(group, way, taken, taken / first) for way, taken in times.items()]
    return rows


def table(rows: Iterable[Row]) -> str:
    """Return the rows as Markdown."""
    lines = ["| group | way | µs | ratio |", "|---|---|--:|--:|"]
    lines += [f"| {row.group} | {row.way} | {row.microseconds:.0f} | {row.ratio:.2f} |" for row in rows]
    return "\n".join(lines)


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write one line per row, with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> None:
    """Measure, print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--batch-size", type=int, default=16, help="at least 2")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each group")
    parser.add_argument("--threads", type=int, default=1, help="torch threads on the CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=path_argument, help="CSV file to write")
    args = parser.parse_args()
    if args.batch_size < 2 or args.threads < 1:
        parser.error("--batch-size must be at least 2 (batch normalisation) and --threads at least 1")
    torch.set_num_threads(args.threads)
    try:
        device = pick_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads\n")
    rows = measure(groups(args.models, args.batch_size, device), args.seconds, device)
    print(table(rows))
    if args.output:
        write_csv(args.output, rows)


if __name__ == "__main__":
    main()
