"""Repeats the centralised CIFAR-10 table of the Active Negative Loss paper with Winnow's own trainer.

    python -m benchmarks.anl_claims --schedule full --jobs 4 --output anl-full.csv
    python -m benchmarks.anl_claims --schedule reduced --jobs 2 --output anl-reduced.csv

Ye et al., "Active Negative Loss Functions for Learning with Noisy Labels", NeurIPS 2023, and its extension of 2024
(published numbers: its Table II). ``full`` has the paper's settings and needs a GPU; ``reduced`` has fewer images,
fewer epochs and a thinner network, for two CPU cores. One client that holds all the data is centralised training.
Finished runs stay in the CSV file and are not repeated; the table is written beside it, as Markdown.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.anl_runs import LOSSES, Case, Outcome, table, title
from benchmarks.ledger import Ledger, positive
from client_app.losses import build
from client_app.optimizers import make_optimizer
from client_app.trainer import GivenLabels, LocalData, Trainer, learning_rate, pick_device
from server_app.cli.config import path_argument
from tasks.base import Labels, evaluate, predict
from tasks.client_data import data_root
from tasks.images import Cifar10
from tasks.noise import NOISES, realised_rate
from tasks.noise.base import Matrix, check_labels
from tasks.seeds import rng, seed_everything, torch_seed

LABELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "clean": ("none", {}),
    "symmetric-0.8": ("symmetric", {"rate": 0.8}),
    "asymmetric-0.4": ("asymmetric-cifar10", {"rate": 0.4}),
    "human-worse": ("human", {"path": "cifar-n/CIFAR-10_human.pt", "column": "worse_label"}),
}
EVALUATIONS = 20
"""A run is measured about this often; its best accuracy is the best of these."""

OWN = ("model", "images", "test_images", "epochs", "batch_size", "learning_rate", "precision")
"""Options that replace what a schedule says."""

SCHEDULES: Mapping[str, tuple[Case, tuple[int, ...]]] = {
    "full": (Case(), (1, 2, 3)),
    "reduced": (
        Case(
            model="thin-cnn8",
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


def class_quota_labels(labels: Labels, transition: Matrix, seed: int) -> Labels:
    """Return the labels (n,) that the paper's code gives for a seed, from NumPy's legacy stream, all at once.

    Of the n_i examples of class i, exactly ``int(n_i * transition[i, j])`` become j; the truncation makes the
    realised rate slightly lower than the asked one. ``transition`` is (K, K). Winnow's own runs draw the noise client
    by client instead.

    Raises
    ------
    NoiseError
        If labels lie outside the matrix.
    """
    labels = check_labels(labels, len(transition))
    stream = np.random.RandomState(seed)
    noisy = labels.copy()
    for true in range(len(transition)):
        left = np.flatnonzero(labels == true)
        quotas = (len(left) * transition[true]).astype(np.int64)
        for given in np.flatnonzero(quotas):
            if given != true:
                chosen = stream.choice(left, quotas[given], replace=False)
                noisy[chosen] = given
                left = np.setdiff1d(left, chosen)
    return noisy


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
    batch_loss = GivenLabels(build(case.loss, task.num_classes, preset="cifar-10"), {})
    for epoch in range(1, case.epochs + 1):
        model.train()
        optimizer.rate = learning_rate(options, epoch, case.epochs)
        for batch in trainer.batches(model, data, torch_seed(case.seed, "train", 0, epoch)):
            trainer.step(model, optimizer, batch_loss, batch)
        yield epoch


def learnt_wrong(predicted: Labels, given: Labels, true: Labels) -> float:
    """Return the share in percent of the wrong labels that are predicted, all (n,); NaN if none is wrong."""
    wrong = given != true
    return 100 * float(np.mean(predicted[wrong] == given[wrong])) if wrong.any() else math.nan


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


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", choices=list(SCHEDULES), required=True)
    parser.add_argument(
        "--output", type=path_argument, required=True, help="CSV file; finished runs in it are not repeated"
    )
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


def words(case: Case, outcome: Outcome) -> str:
    """Return the line about a finished run."""
    return f"{title(case)}: accuracy {outcome.accuracy:.2f} % after {outcome.seconds:.0f} s"


def main() -> None:
    """Do the runs, print the table and write it beside the CSV file."""
    args = arguments()
    data = data_root(args.data)
    try:
        Cifar10(data).check()
        measure = partial(run_case, data=data, device_name=args.device)
        runs = Ledger(args.output, Case, Outcome).complete(cases(args), measure, args.jobs, words)
    except ValueError as error:  # what the user can put right: data, files, devices, names
        sys.exit(f"error: {error}")
    text = f"Schedule {args.schedule}, test accuracy in percent.\n\n{table(runs)}\n"
    args.output.with_suffix(".md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
