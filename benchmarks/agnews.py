"""Which method learns most from news texts with wrong labels? AG News, 20 clients, a bag of words or frozen embeddings.

    python -m benchmarks.agnews --features bag --output agnews-bag.csv
    python -m benchmarks.agnews --features wordllama --noises human --seeds 1 --output few.csv

Each method is tuned alike, see ``benchmarks/tuned.py``; the test texts are the published ones. All clients run in this
process. Finished runs stay in the CSV file and are not repeated; the table is written beside it, as Markdown.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence

from benchmarks.ledger import Ledger, add_run_arguments
from benchmarks.tuned import (
    FEDAVG,
    FSANL,
    MASKED_OPTIM,
    SYMMETRIC,
    Case,
    Comparison,
    Outcome,
    accuracy_table,
    compare,
)
from tasks.config import Flat, overlay

COMMON: Flat = {
    "num-server-rounds": 20,
    "task.name": "ag-news",
    "federation.num-clients": 20,
    "federation.fraction-train": 0.25,
    "partition.args": "alpha = 1.0, min_size = 20",
    "train.epochs": 2,
    "train.batch-size": 64,
    "train.device": "cpu",
    "train.threads": 1,
}
FEATURES: Mapping[str, Flat] = {
    "wordllama": {
        "task.encoder": "wordllama",
        "train.weight-decay": 5e-4,
    },
    "bag": {
        "model.args": "width = 16",
        "train.optimizer": "adam",
    },
}
"""The bag is learned with Adam: most words are rare, and plain gradients hardly move their embeddings."""
TEXTS = "vocabulary = 10_000, train"
NOISES: Mapping[str, Flat] = {
    **SYMMETRIC,
    "human": {
        "noise.name": "human",
        "noise.args": 'path = "agnews/merged_train_small.csv", column = "human_noisy_med", clean_column = "gt"',
    },
}
METHODS: Mapping[str, Flat] = {
    "fedavg": FEDAVG,
    "fedprox": {**FEDAVG, "method.name": "fedprox", "method.args": "mu = 0.1"},
    "fedprox-weak": {**FEDAVG, "method.name": "fedprox", "method.args": "mu = 0.001"},
    "masked-optim": {**MASKED_OPTIM, "strategy.args": "warmup_rounds = 6"},
    "fsanl": FSANL,
    "winnow": {},
}
RATES = (0.00025, 0.001, 0.004, 0.016, 0.064)
"""Learning rates that each method may try."""


def comparison(features: str) -> Comparison:
    """Return what is compared on these features; people's labels are there for a part of the texts."""
    trains = {name: "human" if name == "human" else "small" for name in NOISES}
    noises = {name: {**noise, "task.args": f'{TEXTS} = "{trains[name]}"'} for name, noise in NOISES.items()}
    return Comparison(overlay(COMMON, FEATURES[features]), noises, METHODS, RATES, audits=False)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", choices=FEATURES, required=True, help="what is learned from")
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=list(NOISES))
    add_run_arguments(parser, METHODS)
    return parser.parse_args(given)


def main() -> None:
    """Tune, do the runs, print the table and write it beside the CSV file."""
    args = arguments()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    ledger = Ledger(args.output, Case, Outcome)
    try:
        runs = compare(ledger, comparison(args.features), (args.noises, args.methods), args.seeds, args.jobs)
    except ValueError as error:  # what the user can put right: settings, data, files, names
        sys.exit(f"error: {error}")
    text = f"Test accuracy, mean of the last ten rounds (chosen rate):\n\n{accuracy_table(runs)}\n"
    args.output.with_suffix(".md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
