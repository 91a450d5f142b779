"""Who has many wrong labels? Winnow's detector and the published one, on loss profiles after a warm-up.

    python -m benchmarks.detection --cache profiles --output detection.md
    python -m benchmarks.detection --task cifar-10 --cache profiles --seeds 1 2
    python -m benchmarks.detection --task cifar-10 --cache profiles --fraction 0.3 --rounds 20 [--at-random]

Noisy are, in a grid of rates, the clients above its median, else those with any wrong label. AUC is that of the
posterior, F1 that of the decision; both are means over seeds with the standard deviation. Among clean clients every
division is a false alarm. All clients run in this process; profiles stay in the cache and are not computed again.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks.detection_profiles import NOISES, PARTITIONS, TASKS, Case, Outcome, profiles
from benchmarks.ledger import positive, spread
from server_app.cli.config import path_argument
from strategies.detection import DETECTORS, Detection, detect
from tasks.noise import NoiseWarning

HEAD = "| labels | partition | detector | AUC | F1 | divided in | called noisy |\n|---|---|---|---|---|---|---|"


def row(labels: str, partition: str, detector: str, outcomes: Sequence[Outcome]) -> str:
    """Return one line of the table: a detector on the same federation with several seeds, in percent."""
    built = DETECTORS.build(detector)
    found = [detect(built, outcome.losses, outcome.counts) for outcome in outcomes]
    two = sum(detection.components > 1 for detection in found)
    called = spread([100 * float(detection.noisy.mean()) for detection in found])
    scores = [score(outcome, detection) for outcome, detection in zip(outcomes, found, strict=True)]
    areas, f1 = (spread([pair[i] for pair in scores]) for i in (0, 1))
    return f"| {labels} | {partition} | {detector} | {areas} | {f1} | {two} of {len(found)} | {called} |"


def score(outcome: Outcome, detection: Detection) -> tuple[float, float]:
    """Return AUC and F1 in percent; NaN where all clients are clean or all are noisy."""
    wanted = outcome.wanted()
    if wanted.all() or not wanted.any():
        return float("nan"), float("nan")
    area, f1 = roc_auc_score(wanted, detection.posterior), f1_score(wanted, detection.noisy, zero_division=0)
    return 100 * float(area), 100 * float(f1)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=path_argument, required=True, help="folder for profiles")
    parser.add_argument("--output", type=path_argument, help="file for the table, as Markdown")
    parser.add_argument("--task", choices=list(TASKS), default="digits")
    parser.add_argument("--clients", type=positive, default=20)
    parser.add_argument("--rounds", type=positive, default=10, help="rounds of the warm-up")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the clients that train in a round")
    parser.add_argument("--at-random", action="store_true", help="draw these instead of letting all train in turn")
    parser.add_argument("--estimate-shares", action="store_true", help="weigh predictions by estimated class shares")
    parser.add_argument("--partitions", nargs="+", choices=list(PARTITIONS), default=list(PARTITIONS))
    parser.add_argument("--noises", nargs="+", choices=list(NOISES), default=list(NOISES))
    parser.add_argument("--detectors", nargs="+", default=["official", "robust"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    return parser.parse_args(given)


def case(args: argparse.Namespace, partition: str, labels: str, seed: int) -> Case:
    """Return one federation of the table."""
    how = (args.rounds, args.fraction, not args.at_random, args.estimate_shares)
    return Case(args.task, args.clients, partition, labels, seed, *how)


def main() -> None:
    """Print the table, line by line as profiles become known, and write it."""
    args = arguments()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", NoiseWarning)
    drawn = "at random" if args.at_random else "in turn"
    warm_up = f"{args.rounds} rounds with a share of {args.fraction:g} {drawn}"
    lines = [f"{args.task}, {args.clients} clients, {warm_up}, seeds {' '.join(map(str, args.seeds))}.\n", HEAD]
    print("\n".join(lines), flush=True)
    try:
        for labels in args.noises:
            for partition in args.partitions:
                outcomes = [profiles(case(args, partition, labels, seed), args.cache) for seed in args.seeds]
                lines += [row(labels, partition, detector, outcomes) for detector in args.detectors]
                print("\n".join(lines[-len(args.detectors) :]), flush=True)
    except ValueError as error:  # what the user can put right: settings, data, detectors
        sys.exit(f"error: {error}")
    accuracies = [100 * outcome.accuracy for outcome in outcomes]
    print(f"\nTest accuracy after the warm-up, last line: {np.mean(accuracies):.1f} %")
    if args.output:
        args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
