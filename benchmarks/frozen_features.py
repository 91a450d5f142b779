"""What are the methods worth on good features? CIFAR-10, 100 clients, a linear head on a frozen encoder, or scratch.

    python -m benchmarks.frozen_features --jobs 2 --output frozen.csv
    python -m benchmarks.frozen_features --scratch --noises 0-0.8 human --seeds 1 --output scratch.csv

Each method is tuned alike, see ``benchmarks/tuned.py``. All clients run in this process. Finished runs stay in the CSV
file and are not repeated; the tables are written beside it, as Markdown.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence

from benchmarks.ledger import Ledger, add_run_arguments, positive
from benchmarks.tuned import (
    FEDAVG,
    FSANL,
    MASKED_OPTIM,
    SYMMETRIC,
    Case,
    Comparison,
    Outcome,
    accuracy_table,
    audit_table,
    compare,
)
from tasks.config import Flat, overlay

COMMON: Flat = {
    "num-server-rounds": 60,
    "federation.num-clients": 100,
    "federation.fraction-train": 0.1,
    "partition.args": "alpha = 1.0, min_size = 100",
    "task.name": "cifar-10",
    "train.batch-size": 64,
    "train.weight-decay": 1e-3,
    "train.device": "cpu",
    "train.threads": 1,
}
FROZEN: Flat = {"task.encoder": "efficientnet-lite0", "train.augment": False}
SCRATCH: Flat = {"model.name": "thin-cnn8", "train.weight-decay": 5e-4}
NOISES: Mapping[str, Flat] = {
    "clean": {"noise.name": "none"},
    **SYMMETRIC,
    "human": {"noise.name": "human", "noise.args": 'path = "cifar-n/CIFAR-10_human.pt", column = "worse_label"'},
}
METHODS: Mapping[str, Flat] = {
    "fedavg": FEDAVG,
    "winnow": {},
    "fsanl": FSANL,
    "masked-optim": {**MASKED_OPTIM, "strategy.args": "warmup_rounds = 15", "strategy.weighting": "uniform"},
}
RATES = {"frozen": (0.0001, 0.0003, 0.001, 0.003, 0.01), "scratch": (0.01,)}
"""Learning rates that each method may try; from scratch a run takes ten times as long, and there is one."""


def comparison(scratch: bool, rounds: int, cache: str) -> Comparison:
    """Return what is compared, on features of the frozen encoder or from scratch."""
    own = SCRATCH if scratch else FROZEN
    run: Flat = {"num-server-rounds": rounds, "task.cache-path": cache}
    return Comparison(overlay(COMMON, own, run), NOISES, METHODS, RATES["scratch" if scratch else "frozen"])


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", action="store_true", help="learn from pixels with thin-cnn8, without an encoder")
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=list(NOISES))
    parser.add_argument("--rounds", type=positive, default=COMMON["num-server-rounds"])
    parser.add_argument("--cache", default="", help="folder of encoded images; default: the user's cache")
    add_run_arguments(parser, METHODS)
    return parser.parse_args(given)


def main() -> None:
    """Tune, do the runs, print the tables and write them beside the CSV file."""
    args = arguments()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    compared = comparison(args.scratch, args.rounds, args.cache)
    try:
        ledger = Ledger(args.output, Case, Outcome)
        runs = compare(ledger, compared, (args.noises, args.methods), args.seeds, args.jobs)
    except ValueError as error:  # what the user can put right: settings, data, files, names
        sys.exit(f"error: {error}")
    text = (
        f"Test accuracy, mean of the last ten rounds (chosen rate):\n\n{accuracy_table(runs)}\n\n"
        f"Label audit, AUC / recall / precision:\n\n{audit_table(runs, alone=False)}\n\n"
        f"The same of clients that train alone:\n\n{audit_table(runs, alone=True)}\n"
    )
    args.output.with_suffix(".md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
