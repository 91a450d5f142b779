"""Which method learns most from news texts with wrong labels, each at its own learning rate? AG News, 20 clients.

    python -m benchmarks.agnews --output agnews.csv
    python -m benchmarks.agnews --features wordllama --noises human --seeds 1 --output few.csv

Every method is tuned with the same budget: each learning rate once, on a tenth of the training texts that is held out
with its true labels. The best one then trains on all training texts and is tested on the published test texts. The
number of a run is the mean accuracy of its last ten rounds. Finished runs stay in the CSV file and are not repeated;
the table is written beside it, as Markdown.
"""

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.anl_claims import positive
from benchmarks.in_process import rounds
from benchmarks.ledger import Ledger, spread
from server_app.cli.config import path_argument
from server_app.validation.config import check
from tasks.base import Examples
from tasks.config import Flat
from tasks.datasets.agnews import AgNews
from tasks.seeds import rng

LAST = 10
"""Rounds over which accuracy is averaged."""
HELD_OUT = 0.1
"""Share of the training texts by which learning rates are chosen."""
TUNING_SEED = 11
METHODS: Mapping[str, Flat] = {
    "fedavg": {"loss.name": "ce", "strategy.aggregator": "mean"},
    "fedprox": {"loss.name": "ce", "strategy.aggregator": "mean", "method.name": "fedprox", "method.args": "mu = 0.1"},
    "masked-optim": {
        "loss.name": "la-ce",
        "method.name": "masked-optim",
        "strategy.name": "noise-partition",
        "strategy.args": "warmup_rounds = 6",
    },
    "fsanl": {"loss.name": "fsanl", "strategy.aggregator": "mean"},
    "winnow": {},
}
NOISES: Mapping[str, Flat] = {
    "0-0.4": {"noise.name": "symmetric", "noise.rates-args": "max = 0.4"},
    "0-0.8": {"noise.name": "symmetric", "noise.rates-args": "max = 0.8"},
    "human": {
        "noise.name": "human",
        "noise.args": 'path = "agnews/merged_train_small.csv", column = "human_noisy_med", clean_column = "gt"',
    },
}
FEATURES: Mapping[str, Flat] = {
    "wordllama": {"task.encoder": "wordllama", "train.weight-decay": 5e-4},
    "bag": {"model.args": "width = 16", "train.optimizer": "adam"},
}
"""Embeddings are learned with Adam: most words of a text are rare, and plain gradients hardly move them."""
RATES = (0.001, 0.004, 0.016)
COMMON: Flat = {
    "num-server-rounds": 20,
    "federation.num-clients": 20,
    "federation.fraction-train": 0.25,
    "partition.args": "alpha = 1.0, min_size = 20",
    "train.epochs": 2,
    "train.batch-size": 64,
    "train.device": "cpu",
    "train.threads": 1,
}


class HeldOut(AgNews):
    """AG News with a tenth of the training texts, and their true labels, in place of the test texts."""

    @cached_property
    def _division(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Places of the texts to train on and of those held out, both ascending; the same in every run."""
        order = rng(0, "ag-news", "held out").permutation(len(super().train_examples()))
        held = round(HELD_OUT * len(order))
        return np.sort(order[held:]), np.sort(order[:held])

    def train_examples(self) -> Examples:
        """Return nine tenths of the training texts."""
        return super().train_examples().take(self._division[0])

    def test_examples(self) -> Examples:
        """Return a tenth of the training texts."""
        return super().train_examples().take(self._division[1])

    def train_ids(self) -> npt.NDArray[np.int64]:
        """Return the place of each text among the rows of its table."""
        return super().train_ids()[self._division[0]]

    def data_state(self, part: str, cache: Path) -> str:
        """Return the state of the training table, for both parts."""
        return super().data_state("train", cache)


@dataclass(frozen=True)
class Case:
    """All that decides a run; ``held_out``: it is measured on training texts, to choose the learning rate."""

    features: str
    noise: str
    method: str
    learning_rate: float
    seed: int
    held_out: bool

    def configuration(self) -> Flat:
        """Return the whole run configuration."""
        task, train = "benchmarks.agnews:HeldOut" if self.held_out else "ag-news", "small"
        if self.noise == "human":
            train = "human"
        words = f'train = "{train}", vocabulary = 10_000'
        own: Flat = {"task.name": task, "task.args": words, "train.learning-rate": self.learning_rate}
        chosen = {**FEATURES[self.features], **NOISES[self.noise], **METHODS[self.method]}
        return {**COMMON, **chosen, **own, "seed": self.seed}


@dataclass(frozen=True)
class Outcome:
    """Mean accuracy of the last rounds in percent, and seconds of the run."""

    accuracy: float
    seconds: float


def run_case(case: Case) -> Outcome:
    """Play and measure one case."""
    start = time.perf_counter()
    settings = check(case.configuration())
    torch.set_num_threads(1)
    lines = rounds(settings, settings.num_server_rounds - LAST + 1)
    accuracy = statistics.fmean(100 * line["accuracy"] for line in lines if "accuracy" in line)
    return Outcome(accuracy, time.perf_counter() - start)


def best_rates(tuned: Mapping[Case, Outcome]) -> dict[Case, float]:
    """Return the best learning rate of each cell, which is a case with learning rate and seed 0."""
    found: dict[Case, list[tuple[float, float]]] = {}
    for case, outcome in tuned.items():
        cell = replace(case, learning_rate=0.0, seed=0, held_out=False)
        found.setdefault(cell, []).append((outcome.accuracy, case.learning_rate))
    return {cell: max(results)[1] for cell, results in found.items()}


def table(tested: Mapping[Case, Outcome]) -> str:
    """Return test accuracies as Markdown: mean over seeds ± deviation, and in brackets the learning rate."""
    columns = list(dict.fromkeys((case.features, case.noise) for case in tested))
    lines = [f"| method | {' | '.join(map(', '.join, columns))} |", "|---|" + "---|" * len(columns)]
    for method in dict.fromkeys(case.method for case in tested):
        cells = [_cell(tested, (*column, method)) for column in columns]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(tested: Mapping[Case, Outcome], place: tuple[str, str, str]) -> str:
    found = {case: run for case, run in tested.items() if (case.features, case.noise, case.method) == place}
    rates = "/".join(f"{rate:g}" for rate in dict.fromkeys(case.learning_rate for case in found))
    return f"{spread([run.accuracy for run in found.values()])} ({rates})"


def words(case: Case, outcome: Outcome) -> str:
    """Return the line about a finished run."""
    where = "held out" if case.held_out else "test"
    what = f"{case.features}, {case.noise}, {case.method}, rate {case.learning_rate:g}, seed {case.seed}"
    return f"{what}: {where} {outcome.accuracy:.2f} % after {outcome.seconds:.0f} s"


def compare(args: argparse.Namespace) -> dict[Case, Outcome]:
    """Tune and test all that the command line asks for, one noise after the other, and return the tests."""
    ledger = Ledger(args.output, Case, Outcome)
    tested: dict[Case, Outcome] = {}
    for noise, features in product(args.noises, args.features):
        cells = [Case(features, noise, method, 0.0, 0, False) for method in args.methods]
        trial = partial(replace, seed=TUNING_SEED, held_out=True)
        trials = [trial(cell, learning_rate=rate) for cell in cells for rate in RATES]
        rates = best_rates(ledger.complete(trials, run_case, args.jobs, words))
        tests = [replace(cell, learning_rate=rates[cell], seed=seed) for seed in args.seeds for cell in cells]
        tested |= ledger.complete(tests, run_case, args.jobs, words)
    return tested


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=list(FEATURES))
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=list(NOISES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time, each a process of its own")
    parser.add_argument("--output", type=path_argument, required=True, help="CSV file of finished runs")
    return parser.parse_args(given)


def main() -> None:
    """Do the runs, print the table and write it beside the CSV file."""
    args = arguments()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        text = table(compare(args))
    except ValueError as error:  # what the user can put right: settings, data, files, names
        sys.exit(f"error: {error}")
    args.output.with_suffix(".md").write_text(f"{text}\n")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
