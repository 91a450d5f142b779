"""Repeats the centralised CIFAR-10 table of the Active Negative Loss paper with Winnow's own trainer.

    python -m benchmarks.anl_claims --schedule full --jobs 4 --output anl-full.csv
    python -m benchmarks.anl_claims --schedule reduced --jobs 2 --output anl-reduced.csv

Ye et al., "Active Negative Loss Functions for Learning with Noisy Labels", NeurIPS 2023, and its extension of 2024
(published numbers: its Table II). ``full`` has the paper's settings and needs a GPU; ``reduced`` has fewer images,
fewer epochs and a thinner network, for two CPU cores. One client that holds all the data is centralised training.
Finished runs stay in the CSV file and are not repeated; the table is written beside it, as Markdown.
"""

import argparse
import csv
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from client_app.losses import build
from client_app.trainer import LocalData, Trainer, learning_rate, make_optimizer, pick_device
from tasks.base import Labels
from tasks.cifar import Cifar10
from tasks.measure import evaluate, predict
from tasks.models.initialization import init_published
from tasks.noise import NOISES, class_quota_labels, realised_rate
from tasks.seeds import rng, seed_everything, torch_seed
from tasks.settings import TrainSettings
from tasks.shares import data_root

LOSSES = ("ce", "nce+rce", "anl-ce", "anl-ce*")
LABELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "clean": ("none", {}),
    "symmetric-0.8": ("symmetric", {"rate": 0.8}),
    "asymmetric-0.4": ("asymmetric-cifar10", {"rate": 0.4}),
    "human-worse": ("human", {"path": "cifar-n/CIFAR-10_human.pt", "column": "worse_label"}),
}
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "clean": (90.38, 90.94, 91.66, 91.52),
    "symmetric-0.8": (19.09, 55.52, 61.27, 61.62),
    "asymmetric-0.4": (73.69, 77.75, 77.63, 81.47),
    "human-worse": (61.43, 79.74, 80.23, 81.16),
}
"""Test accuracy in percent of ``LOSSES`` after 120 epochs, mean over the seeds 1, 2 and 3."""

EVALUATIONS = 20
"""A run is measured about this often; its best accuracy is the best of these."""


@dataclass(frozen=True)
class Case:
    """All that decides the outcome of one run; the defaults are the paper's."""

    labels: str = "clean"
    loss: str = "ce"
    seed: int = 1
    model: str = "cnn8"
    images: int = 50_000
    test_images: int = 10_000
    epochs: int = 120
    batch_size: int = 128
    learning_rate: float = 0.01
    precision: str = "float32"
    augment: bool = True

    def options(self) -> TrainSettings:
        """Return the settings of one epoch; the ANL losses bring their own L1 in place of weight decay."""
        return TrainSettings(
            optimizer="sgd",
            learning_rate=self.learning_rate,
            momentum=0.9,
            weight_decay=0.0 if self.loss.startswith("anl") else 1e-4,
            schedule="cosine",
            clip_norm=5.0,
            epochs=1,
            batch_size=self.batch_size,
            precision=self.precision,
            augment=self.augment,
        )


@dataclass(frozen=True)
class Outcome:
    """What a run gave: shares in percent, NaN for ``learnt_wrong`` where no label is wrong.

    ``learnt_wrong`` is the share of the wrong labels that the network predicts for their images at the end.
    """

    accuracy: float
    best_accuracy: float
    learnt_wrong: float
    noise_rate: float
    seconds: float


SCHEDULES: Mapping[str, tuple[Case, tuple[int, ...]]] = {
    "full": (Case(), (1, 2, 3)),
    "reduced": (
        Case(
            model="benchmarks.anl_claims:thin_cnn8",
            images=8000,
            test_images=2000,
            epochs=30,
            batch_size=64,
            learning_rate=0.05,
            precision="bfloat16",
            augment=False,
        ),
        (1,),
    ),
}


def thin_cnn8(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Return the paper's network with a quarter of the channels in each of its six convolutions (16, 32, 49).

    The hidden layer keeps its 256 units. 33,000 images a second fit into the time of 2,000 of the full network's.
    """
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for size in (16, 32, 49):
        for inputs in (channels, size):
            layers += [nn.Conv2d(inputs, size, 3, padding=1), nn.BatchNorm2d(size), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
        channels = size
    hidden = nn.Linear(channels * (height // 8) * (width // 8), 256)
    model = nn.Sequential(*layers, nn.Flatten(), hidden, nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, num_classes))
    init_published(model)
    return model


@lru_cache(maxsize=1)
def load_task(data: Path, images: int, test_images: int) -> Cifar10:
    """Return CIFAR-10 with as many images; read once per process."""
    return Cifar10(data, images, test_images)


def given_labels(name: str, seed: int, task: Cifar10) -> Labels:
    """Return the labels (n,) to train with: those of the paper's code for ``seed``, or the people's."""
    clean = task.train_examples().labels
    noise, args = LABELS[name]
    rule = NOISES.build(noise, args, num_classes=task.num_classes, data_root=task.data_path)
    matrix = rule.transition_matrix()
    if matrix is None:
        return rule(clean, rng(seed, "noise", 0), ids=task.train_ids())
    return class_quota_labels(clean, matrix, seed)


def run_case(case: Case, data: Path, device_name: str) -> Outcome:
    """Train and measure one case; reports its progress on standard output."""
    start = time.perf_counter()
    task = load_task(data, case.images, case.test_images)
    device = pick_device(device_name)
    examples = task.train_examples()
    labels = given_labels(case.labels, case.seed, task)
    local = LocalData(examples.features.to(device), torch.from_numpy(labels).to(device))
    seed_everything(case.seed, "init")
    model = task.build_model(case.model, "")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    accuracies = []
    for epoch in train(model, case, task, local, device):
        if epoch % math.ceil(case.epochs / EVALUATIONS) == 0 or epoch == case.epochs:
            measured = evaluate(model, task, task.test_examples(), 512, device)
            accuracies.append(100 * measured["accuracy"])
            print(f"{title(case)}: epoch {epoch}/{case.epochs}, accuracy {accuracies[-1]:.2f} %", flush=True)
    predicted = predict(model, task, local.features, 512, device).argmax(1).numpy()
    return Outcome(
        accuracy=accuracies[-1],
        best_accuracy=max(accuracies),
        learnt_wrong=learnt_wrong(predicted, labels, examples.labels),
        noise_rate=100 * realised_rate(examples.labels, labels),
        seconds=time.perf_counter() - start,
    )


def train(model: nn.Module, case: Case, task: Cifar10, data: LocalData, device: torch.device) -> Iterator[int]:
    """Train in place and yield the number of each finished epoch: one optimizer, its rate set before every epoch."""
    options = case.options()
    trainer = Trainer(task, options, device)
    optimizer = make_optimizer(model, options, case.learning_rate)
    objective = build(case.loss, task.num_classes, preset="cifar-10")
    for epoch in range(1, case.epochs + 1):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(options, epoch, case.epochs)
        for batch, features in trainer.batches(model, data, torch_seed(case.seed, "train", 0, epoch)):
            trainer.step(model, optimizer, objective, features, data.labels[batch], {})
        yield epoch


def learnt_wrong(predicted: Labels, given: Labels, true: Labels) -> float:
    """Return the share in percent of the wrong labels that are predicted, all (n,); NaN if none is wrong."""
    wrong = given != true
    return 100 * float(np.mean(predicted[wrong] == given[wrong])) if wrong.any() else math.nan


def outcomes(cases: Sequence[Case], measure: Callable[[Case], Outcome], jobs: int) -> Iterator[tuple[Case, Outcome]]:
    """Yield each case with its outcome when it is finished; with several jobs, each is a process of its own."""
    if jobs == 1:
        yield from ((case, measure(case)) for case in cases)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        try:
            waiting = {pool.submit(measure, case): case for case in cases}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_runs(path: Path) -> dict[Case, Outcome]:
    """Return the finished runs of a CSV file; none if it does not exist.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        lines = csv.DictReader(file)
        if lines.fieldnames != columns():
            raise ValueError(f"{path} is not a file of this benchmark: expected the columns {', '.join(columns())}")
        return {parsed(Case, line): parsed(Outcome, line) for line in lines}


def append_run(path: Path, case: Case, outcome: Outcome) -> None:
    """Add one line to the CSV file, and the header if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns())
        if new:
            writer.writeheader()
        writer.writerow(asdict(case) | asdict(outcome))


def columns() -> list[str]:
    """Return the columns of the CSV file."""
    return [field.name for kind in (Case, Outcome) for field in fields(kind)]


def parsed(kind: Callable[..., Any], line: Mapping[str, str]) -> Any:
    """Return a ``Case`` or an ``Outcome`` from a line of the CSV file."""
    read: Mapping[Any, Callable[[str], Any]] = {str: str, int: int, float: float, bool: lambda text: text == "True"}
    return kind(**{field.name: read[field.type](line[field.name]) for field in fields(kind)})


def title(case: Case) -> str:
    """Return the words for a case in messages."""
    return f"{case.labels}, {case.loss}, seed {case.seed}"


def table(runs: Mapping[Case, Outcome]) -> str:
    """Return the published and the measured numbers as Markdown, in percent: mean over seeds, ± standard deviation."""
    lines = ["| labels | | " + " | ".join(LOSSES) + " |", "|---|---|" + "---|" * len(LOSSES)]
    for labels in LABELS:
        found = {loss: [o for c, o in runs.items() if (c.labels, c.loss) == (labels, loss)] for loss in LOSSES}
        if not any(found.values()):
            continue
        rows = {
            "published": [f"{value:.2f}" for value in PUBLISHED[labels]],
            "last epoch": [spread([run.accuracy for run in found[loss]]) for loss in LOSSES],
            "best epoch": [spread([run.best_accuracy for run in found[loss]]) for loss in LOSSES],
            "wrong labels learnt": [spread([run.learnt_wrong for run in found[loss]]) for loss in LOSSES],
        }
        lines += [f"| {labels} | {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation over seeds, the mean alone for one seed, a dash for none.

    >>> spread([80.0, 82.0]), spread([80.0]), spread([])
    ('81.00 ± 1.41', '80.00', '-')
    """
    if not values or any(math.isnan(value) for value in values):
        return "-"
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def cases(args: argparse.Namespace) -> list[Case]:
    """Return the runs that are asked for, one seed after the other."""
    base, seeds = SCHEDULES[args.schedule]
    own = {key: getattr(args, key) for key in OWN if getattr(args, key) is not None}
    base = replace(base, **own)
    return [
        replace(base, labels=labels, loss=loss, seed=seed)
        for seed in args.seeds or seeds
        for labels in args.labels
        for loss in args.losses
    ]


OWN = ("model", "images", "test_images", "epochs", "batch_size", "learning_rate", "precision")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", choices=list(SCHEDULES), required=True)
    parser.add_argument("--output", type=Path, required=True, help="CSV file; finished runs in it are not repeated")
    parser.add_argument("--data", default="", help="folder with cifar-10-batches-py and cifar-n; else $WINNOW_DATA")
    parser.add_argument("--labels", nargs="+", choices=list(LABELS), default=list(LABELS))
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--seeds", nargs="+", type=int, help="in place of the schedule's")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--jobs", type=positive, default=1, help="runs side by side, each in its own process")
    own = parser.add_argument_group("other than the schedule says")
    own.add_argument("--model", help="model, or package.module:Name")
    for name in ("--images", "--test-images", "--epochs", "--batch-size"):
        own.add_argument(name, type=positive)
    own.add_argument("--learning-rate", type=float)
    own.add_argument("--precision", choices=("float32", "bfloat16"))
    return parser.parse_args(given)


def positive(text: str) -> int:
    """Return a whole number of at least 1.

    Raises
    ------
    ArgumentTypeError
        If it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def complete(wanted: Sequence[Case], path: Path, measure: Callable[[Case], Outcome], jobs: int) -> dict[Case, Outcome]:
    """Do the runs that the CSV file does not have yet, add each to it, and return those that are wanted."""
    runs = read_runs(path)
    missing = [case for case in wanted if case not in runs]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {path}, {len(missing)} to do", flush=True)
    for number, (case, outcome) in enumerate(outcomes(missing, measure, jobs), start=1):
        append_run(path, case, outcome)
        runs[case] = outcome
        done = f"[{number}/{len(missing)}] {title(case)}"
        print(f"{done}: accuracy {outcome.accuracy:.2f} % after {outcome.seconds:.0f} s", flush=True)
    return {case: runs[case] for case in wanted}


def main() -> None:
    """Do the runs, print the table and write it beside the CSV file."""
    args = arguments()
    data = data_root(args.data)
    try:
        Cifar10(data).check()
        runs = complete(cases(args), args.output, partial(run_case, data=data, device_name=args.device), args.jobs)
    except ValueError as error:  # what the user can put right: data, files, devices, names
        sys.exit(f"error: {error}")
    text = f"Schedule {args.schedule}, test accuracy in percent.\n\n{table(runs)}\n"
    args.output.with_suffix(".md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
