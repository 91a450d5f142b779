"""Which loss learns the outlines of skin lesions best when masks are wrong? ISIC-2017, Dice of held-out images.

    python -m benchmarks.isic_masks --output isic-masks.csv
    python -m benchmarks.isic_masks --losses ce t-loss --seeds 1 2 3 --output few.csv

``WINNOW_DATA`` must name the folder with ``isic2017/train``. A share alpha of the masks is grown, shrunk or displaced
by beta of its area. Each loss takes the learning rate that was best under noise (0.5, 0.5) on validation images with
clean masks, after fewer rounds; test images are looked at once, with that rate. The official test masks are not at
hand: both parts are training images that no client has. All clients run in this process, without Ray. Finished runs
stay in the CSV file and are not repeated; the table is written beside it, as Markdown.
"""

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.in_process import rounds
from benchmarks.ledger import Ledger, spread
from server_app.cli.config import path_argument
from server_app.validation.config import check
from tasks.base import Examples
from tasks.config import Flat
from tasks.metrics import image_dice
from tasks.own_data.masks import ImageMasks
from tasks.own_data.reading import Reading
from tasks.seeds import rng

PARTS = {"train": (0, 320), "validation": (320, 470), "test": (470, 770)}
"""Places of each part in a fixed order of the 2,000 images."""
DECLARED: dict[str, Any] = {
    "images": "image",
    "masks": "mask256",
    "mask_suffix": "_segmentation",
    "classes": ["skin", "lesion"],
    "values": [0, 255],
}
MEAN: Flat = {"strategy.aggregator": "mean"}
LOSSES_SHOWN: Mapping[str, Flat] = {
    "ce": MEAN | {"loss.name": "ce"},
    "mae": MEAN | {"loss.name": "mae"},
    "gce": MEAN | {"loss.name": "gce"},
    "sce": MEAN | {"loss.name": "sce"},
    "nce+rce": MEAN | {"loss.name": "nce+rce"},
    "anl-ce": MEAN | {"loss.name": "anl-ce"},
    "t-loss": MEAN | {"loss.name": "t-loss"},
    "winnow": {},
}
"""Settings of each row; ``winnow`` is the default loss and aggregator, all others are federated averaging."""
COMMON: Flat = {
    "task.name": "benchmarks.isic_masks:LesionMasks",
    "federation.num-clients": 4,
    "partition.name": "iid",
    "partition.args": "",
    "model.args": "width = 8, depth = 4",
    "noise.name": "masks",
    "noise.rates": "constant",
    "train.optimizer": "adam",
    "train.batch-size": 8,
    "train.epochs": 1,
    "train.device": "cpu",
    "train.threads": 1,
    "audit.enabled": False,
    "evaluate.validation": 0.0,
}
"""What is held out is images of their own, see :class:`LesionMasks`."""
RATES = (3e-3, 1e-2, 3e-2)
NOISES_SHOWN = ((0.0, 0.5), (0.5, 0.5), (0.7, 0.7))
TUNED_AT = (0.5, 0.5)
ROUNDS, TUNING_ROUNDS = 15, 8


class LesionMasks(ImageMasks):
    """ISIC-2017, 320 training images; evaluated are 150 images for validation or 300 for the test."""

    brings_own_data = False

    def __init__(self, data_path: Path, part: str = "validation", size: int = 64) -> None:
        folder = Path(data_path) / "isic2017" / "train"
        super().__init__(**DECLARED, data_path=folder, size=size)
        self._part = part

    @cached_property
    def _train(self) -> Reading:
        return everything(self.root, self.size)

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return rng(2017, "isic-masks").permutation(len(self._train.examples))

    def _examples(self, part: str) -> Examples:
        return self._train.examples.take(self._order[slice(*PARTS[part])])

    def train_examples(self) -> Examples:
        """Return the training images, uint8 (320, 3, size, size)."""
        return self._examples("train")

    def train_ids(self) -> npt.NDArray[np.int64]:
        """Return the place of each training image among all."""
        return self._order[slice(*PARTS["train"])]

    def has_test_examples(self) -> bool:
        """Tell that there are examples to evaluate on."""
        return True

    def test_examples(self) -> Examples:
        """Return the images to evaluate on, with their clean masks."""
        return self._examples(self._part)

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the measures of the task, and the mean Dice of the lesions with its standard error."""
        each = image_dice(logits.argmax(1), labels, 2)
        error = each.std().item() / len(each) ** 0.5
        return {**super().metrics(logits, labels), "dice": each.mean().item(), "dice-error": error}


@cache
def everything(folder: Path, size: int) -> Reading:
    """Return all images, read once for both parts."""
    return ImageMasks(**DECLARED, data_path=folder, size=size).read(folder)


@dataclass(frozen=True)
class Case:
    """All that decides a run; ``part`` is that of the images it is evaluated on."""

    loss: str
    alpha: float
    beta: float
    rate: float
    rounds: int
    part: str
    seed: int
    size: int

    def configuration(self) -> Flat:
        """Return the whole run configuration."""
        return {
            **LOSSES_SHOWN[self.loss],
            **COMMON,
            "task.args": f"part = '{self.part}', size = {self.size}",
            "noise.args": f"strength = {self.beta}",
            "noise.rates-args": f"rate = {self.alpha}",
            "train.learning-rate": self.rate,
            "num-server-rounds": self.rounds,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Outcome:
    """Mean Dice of the lesions over images, its standard error, mean IoU, all in percent, and seconds."""

    dice: float
    error: float
    mean_iou: float
    seconds: float


def run_case(case: Case) -> Outcome:
    """Play and measure one case."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    last = list(rounds(check(case.configuration()), case.rounds))[-1]
    found = (100 * last[name] for name in ("dice", "dice-error", "mean-iou"))
    return Outcome(*found, time.perf_counter() - start)


def tuning_cases(losses: Sequence[str], seed: int, size: int) -> list[Case]:
    """Return the runs that choose the learning rates."""
    known = (TUNING_ROUNDS, "validation", seed, size)
    return [Case(loss, *TUNED_AT, rate, *known) for loss in losses for rate in RATES]


def best_rates(tuned: Mapping[Case, Outcome]) -> dict[str, float]:
    """Return the learning rate of the best Dice on validation images of each loss."""
    best: dict[str, tuple[float, float]] = {}
    for case, outcome in tuned.items():
        best[case.loss] = max(best.get(case.loss, (-1.0, 0.0)), (outcome.dice, case.rate))
    return {loss: rate for loss, (_, rate) in best.items()}


def words(case: Case, outcome: Outcome) -> str:
    """Return the line about a finished run."""
    noise = f"({case.alpha:g}, {case.beta:g}), {case.rate:g}, {case.part}"
    return f"{case.loss} {noise}: Dice {outcome.dice:.1f} % after {outcome.seconds:.0f} s"


def table(runs: Mapping[Case, Outcome]) -> str:
    """Return Dice as Markdown: mean over seeds, ± standard deviation; one seed: ± standard error over images."""
    noises = list(dict.fromkeys((case.alpha, case.beta) for case in runs))
    heads = [f"({alpha:g}, {beta:g})" if alpha else "clean" for alpha, beta in noises]
    lines = [f"| loss | rate | {' | '.join(heads)} |", "|---|" + "---|" * (len(heads) + 1)]
    for loss in dict.fromkeys(case.loss for case in runs):
        own = {case: outcome for case, outcome in runs.items() if case.loss == loss}
        cells = [_cell([o for case, o in own.items() if (case.alpha, case.beta) == noise]) for noise in noises]
        lines.append(f"| {loss} | {next(iter(own)).rate:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Sequence[Outcome]) -> str:
    if len(found) == 1:
        return f"{found[0].dice:.2f} ± {found[0].error:.2f}"
    return spread([outcome.dice for outcome in found])


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", choices=LOSSES_SHOWN, default=list(LOSSES_SHOWN))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--size", type=int, default=64, help="pixels of a side, a multiple of 16")
    parser.add_argument("--output", type=path_argument, required=True, help="CSV file of finished runs")
    return parser.parse_args(given)


def main() -> None:
    """Choose the learning rates, do the runs, print the table and write it beside the CSV file."""
    args = arguments()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    ledger = Ledger(args.output, Case, Outcome)
    try:
        rates = best_rates(ledger.complete(tuning_cases(args.losses, args.seeds[0], args.size), run_case, 1, words))
        wanted = [
            Case(loss, *noise, rates[loss], ROUNDS, "test", seed, args.size)
            for noise in NOISES_SHOWN
            for seed in args.seeds
            for loss in args.losses
        ]
        runs = ledger.complete(wanted, run_case, 1, words)
    except ValueError as error:  # what the user can put right: settings, data, files, names
        sys.exit(f"error: {error}")
    text = f"ISIC-2017, {args.size}x{args.size} pixels, 4 clients of 80 images; Dice in percent.\n\n{table(runs)}\n"
    args.output.with_suffix(".md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
