"""Which method trains the best model from clients with wrong labels, and how many labels does it put right?

    python -m benchmarks.noisy_clients --jobs 2 --output noisy-clients.csv
    python -m benchmarks.noisy_clients --methods fedavg masked-optim --seeds 1 2 3 4 5 --output few.csv

Every method sees the same clients, partition and wrong labels for a seed, and the same local work: FedCorr's rounds of
one client count as the share of a round that they are. All clients run in this process, without Ray. Finished runs stay
in the CSV file and are not repeated; the table is written beside it, as Markdown.
"""

import argparse
import logging
import math
import statistics
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.in_process import Federation
from benchmarks.ledger import Ledger, add_run_arguments, spread
from client_app.methods import METHODS, ClientMethod
from server_app.validation.config import check
from tasks.client_data import client_dataset
from tasks.config import Flat, flatten

RECIPES = Path(__file__).parents[1] / "server_app/recipes"
LAST = 0.1
"""Share of the rounds, the last ones, over which accuracy is averaged."""
NOISY = 0.4
"""Clients with at least this share of wrong labels are those whose labels the table follows."""
SLOW: Flat = {"train.learning-rate": 0.03, "train.momentum": 0.5}
"""Gentler local training: federated averaging learns fewer wrong labels by heart with it."""
METHODS_SHOWN: Mapping[str, str | Flat] = {
    "fedavg": {"loss.name": "ce", "strategy.aggregator": "mean"},
    "geometric-median": {"loss.name": "ce"},
    "fedprox": {"loss.name": "ce", "strategy.aggregator": "mean", "method.name": "fedprox", "method.args": "mu = 0.1"},
    "fsanl": {"loss.name": "fsanl", "strategy.aggregator": "mean"},
    "winnow": {},
    "fednoro": "fednoro-digits",
    "fedelc": "fedelc-digits",
    "fedcorr": "fedcorr-digits",
    "masked-optim": "masked-optim-digits",
    "masked-optim-keep-0.2": "masked-optim-digits",
    "fedavg-slow": {"loss.name": "ce", "strategy.aggregator": "mean"} | SLOW,
    "masked-optim-slow": "masked-optim-digits",
}
"""Settings, or the recipe that has them."""
CHANGES: Mapping[str, Flat] = {
    "masked-optim-keep-0.2": {"method.args": "keep = 0.2"},
    "masked-optim-slow": SLOW,
}
COMMON: Flat = {
    "noise.name": "symmetric",
    "noise.rates-args": "max = 0.8",
    "train.device": "cpu",
    "train.threads": 1,
    "evaluate.validation": 0.0,
}
"""Nothing is chosen, so all examples train."""


@dataclass(frozen=True)
class Case:
    """All that decides a run."""

    method: str
    seed: int

    def configuration(self) -> Flat:
        """Return the whole run configuration."""
        shown = METHODS_SHOWN[self.method]
        own = flatten(tomllib.loads((RECIPES / f"{shown}.toml").read_text())) if isinstance(shown, str) else shown
        return {**own, **CHANGES.get(self.method, {}), **COMMON, "seed": self.seed}


@dataclass(frozen=True)
class Outcome:
    """What a run gave, in percent; labels are those of noisy clients, NaN without a method that corrects them.

    ``found`` is the share of the noisy clients among those called noisy, ``missed`` the share of noisy clients that
    were not; NaN without roles, and ``found`` also where nobody was called noisy.
    """

    accuracy: float
    mean_accuracy: float
    labels_before: float
    labels_after: float
    found: float
    missed: float
    seconds: float


def run_case(case: Case) -> Outcome:
    """Play and measure one case."""
    start = time.perf_counter()
    settings = check(case.configuration())
    torch.set_num_threads(1)  # with two threads a small network takes four times as long
    federation = Federation(settings)
    first = settings.num_server_rounds - max(1, round(LAST * settings.num_server_rounds)) + 1
    accuracies = [100 * line["accuracy"] for line in federation.rounds(first) if "accuracy" in line]
    before, after = label_accuracy(federation)
    found, missed = roles(federation)
    return Outcome(
        accuracies[-1], statistics.fmean(accuracies), before, after, found, missed, time.perf_counter() - start
    )


def noisy_clients(federation: Federation) -> list[int]:
    """Return the clients with many wrong labels."""
    clients = federation.clients.get_node_ids()
    return [client for client in clients if client_dataset(federation.settings, client).noise_rate >= NOISY]


def label_accuracy(federation: Federation) -> tuple[float, float]:
    """Return how many labels of noisy clients are right as given, and as the method believes them, in percent."""
    method = METHODS.build(federation.settings.method.name, federation.settings.method.args)
    if type(method).corrected is ClientMethod.corrected:
        return math.nan, math.nan
    given, believed = [], []
    for client in noisy_clients(federation):
        share = client_dataset(federation.settings, client)
        given.append(share.data.labels == share.true_labels)
        belief = method.corrected(federation.clients.states.get(client, {}))
        believed.append(given[-1] if belief is None else belief.argmax(axis=1) == share.true_labels)
    return 100 * float(np.concatenate(given).mean()), 100 * float(np.concatenate(believed).mean())


def roles(federation: Federation) -> tuple[float, float]:
    """Return the share of really noisy clients among those called noisy, and that of noisy ones missed, in percent."""
    known = getattr(federation.strategy, "roles", {})
    called = {client for client, role in known.items() if role == "noisy"}
    noisy = set(noisy_clients(federation))
    found = 100 * len(called & noisy) / len(called) if called else math.nan
    return found, 100 * len(noisy - called) / len(noisy) if known and noisy else math.nan


def words(case: Case, outcome: Outcome) -> str:
    """Return the line about a finished run."""
    return f"{case.method}, seed {case.seed}: {outcome.mean_accuracy:.1f} % after {outcome.seconds:.0f} s"


def table(runs: Mapping[Case, Outcome]) -> str:
    """Return the outcomes as Markdown: mean over seeds, ± standard deviation."""
    columns = ("accuracy", "mean_accuracy", "labels_before", "labels_after", "found", "missed", "seconds")
    heads = (
        "last round",
        "last tenth",
        "labels given",
        "labels corrected",
        "called noisy that are",
        "noisy missed",
        "seconds",
    )
    lines = [f"| method | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for method in dict.fromkeys(case.method for case in runs):
        found = [outcome for case, outcome in runs.items() if case.method == method]
        cells = [spread([getattr(outcome, column) for outcome in found]) for column in columns]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, METHODS_SHOWN)
    return parser.parse_args(given)


def main() -> None:
    """Do the runs, print the table and write it beside the CSV file."""
    args = arguments()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    wanted = [Case(method, seed) for seed in args.seeds for method in args.methods]
    try:
        runs = Ledger(args.output, Case, Outcome).complete(wanted, run_case, args.jobs, words)
    except ValueError as error:  # what the user can put right: settings, data, files, names
        sys.exit(f"error: {error}")
    text = f"digits, 20 clients, percent.\n\n{table(runs)}\n"
    args.output.with_suffix(".md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
