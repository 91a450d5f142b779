"""Ladder of training speed on a GPU: engines and number formats, for a client's epoch, whole rounds and long recipes.

    python -m benchmarks.gpu_ladder

One command for a machine that is lent for minutes: it takes less than 8, makes its examples itself (3x32x32 images) and
needs only the repository. A client's epoch is 500 images in batches of 50 with anl-ce, crop and flip; a round has ten
clients with five epochs each, played in this process; of the recipes with 120 rounds only a few are played, and
their seconds a round say what 120 take. Each part has its share of the time, and says what it had no time for. Without
a GPU it runs on the CPU, which shows that it works and nothing else.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from benchmarks.in_process import Federation
from benchmarks.ledger import positive
from client_app import losses
from client_app.trainer import LocalData, Trainer, pick_device
from server_app.cli.config import make_plan
from tasks.base import Examples
from tasks.config import Flat, parse
from tasks.images import Cifar10
from tasks.models import MODELS
from tasks.seeds import rng, seed_everything
from tasks.settings import TrainSettings

ROOT = Path(__file__).parents[1]
NETWORKS = {"cnn8": "", "resnet18": 'norm = "group"'}
ENGINES = ("eager", "compile")
PRECISIONS = ("float32", "bfloat16", "bfloat16-channels-last")
WAYS = (("eager", "float32"), ("eager", "bfloat16"), ("compile", "bfloat16"))
"""Engine and number format of whole rounds and recipes."""
RECIPES = ("cifar10-masked-optim", "cifar10-masked-optim-fedavg")
PUBLISHED_ROUNDS = 120
SMALL = [
    "task.args=train_samples = 600, test_samples = 50",
    "model.name=linear",
    "train.epochs=1",
    "federation.num-clients=4",
    "federation.fraction-train=1.0",
]
SHARES = {"epoch": 0.35, "round": 0.7, "recipe": 1.0}
"""Part of the time after which a part of the ladder starts nothing more."""


class MadeImages(Cifar10):
    """Random images of the size of CIFAR-10, with its augmentation: speed does not depend on what is to be seen."""

    sizes: ClassVar[dict[str, int]] = {"train": 5000, "test": 1000}

    def check(self) -> None:
        """There is nothing to check."""

    def data_state(self, part: str, cache: Path) -> str:
        """Return the number of examples."""
        return str(self.sizes[part])

    def read(self, part: str) -> Examples:
        """Return the images of ``part``."""
        drawn, count = rng(1, "gpu-ladder", part), self.sizes[part]
        images = torch.from_numpy(drawn.integers(0, 256, (count, *self.input_shape), np.uint8))
        return Examples(images, drawn.integers(10, size=count))


class Clock:
    """Says whether there is time left for a part of the ladder."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._start = seconds, time.monotonic()

    def over(self, part: str) -> bool:
        """Tell whether nothing more of ``part`` should start."""
        return time.monotonic() - self._start > SHARES[part] * self._seconds


def timed(act: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the clock until the device has done what a call asks of it."""
    started = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def epoch_seconds(
    network: str, options: TrainSettings, device: torch.device, images: int, repeats: int
) -> tuple[float, float]:
    """Return the seconds of the first epoch, with compilation, and the median of those after it."""
    task = MadeImages()
    seed_everything(1, "gpu-ladder")
    model = MODELS.build(network, NETWORKS[network], num_classes=10, input_shape=task.input_shape).to(device)
    examples = task.train_examples().take(np.arange(images))
    data = LocalData(examples.features.to(device), torch.from_numpy(examples.labels).to(device))
    objective, trainer = losses.build("anl-ce", 10), Trainer(task, options, device)
    first, *others = [
        timed(lambda i=i: trainer.fit(model, data, objective, {}, 0.01, (1, 0, i)), device)  # type: ignore[misc]
        for i in range(repeats + 1)
    ]
    return first, statistics.median(others)


def epochs(device: torch.device, images: int, repeats: int, clock: Clock) -> Iterator[str]:
    """Yield the rows of a client's epoch."""
    yield "| network | engine | precision | ms an epoch | times as fast | s for the first |\n|---|---|---|---|---|---|"
    for network in NETWORKS:
        base = 0.0
        for engine in ENGINES:
            for precision in PRECISIONS:
                way = f"| {network} | {engine} | {precision} |"
                if clock.over("epoch"):
                    yield f"{way} no time | | |"
                    continue
                options = TrainSettings(epochs=1, batch_size=50, precision=precision, engine=engine)
                first, found = epoch_seconds(network, options, device, images, repeats)
                base = base or found
                yield f"{way} {1e3 * found:.1f} | {base / found:.2f} | {first:.1f} |"


def round_seconds(flat: Flat, rounds: int, device: torch.device) -> list[float]:
    """Return the seconds of each round of a run in this process, aggregation and evaluation included."""
    played, found = Federation(parse(flat)).rounds(), []
    for _ in range(rounds):
        found.append(timed(lambda: next(played), device))
    return found


def whole_rounds(device: torch.device, images: int, rounds: int, clock: Clock) -> Iterator[str]:
    """Yield the rows of whole rounds: ten clients, five epochs each."""
    yield "| network | engine | precision | s a round | s for the first |\n|---|---|---|---|---|"
    for network, args in NETWORKS.items():
        for engine, precision in WAYS:
            way = f"| {network} | {engine} | {precision} |"
            if clock.over("round"):
                yield f"{way} no time | |"
                continue
            found = round_seconds(
                {
                    "task.name": "benchmarks.gpu_ladder:MadeImages",
                    "task.args": f"train_samples = {10 * images}",
                    "model.name": network,
                    "model.args": args,
                    "partition.name": "iid",
                    "partition.args": "",
                    "federation.num-clients": 10,
                    "num-server-rounds": rounds + 1,
                    "loss.name": "anl-ce",
                    "train.batch-size": 50,
                    "train.precision": precision,
                    "train.engine": engine,
                    "train.device": device.type,
                },
                rounds + 1,
                device,
            )
            yield f"{way} {statistics.median(found[1:]):.2f} | {found[0]:.2f} |"


def recipes(device: torch.device, rounds: int, small: bool, clock: Clock) -> Iterator[str]:
    """Yield the rows of the published recipes, with few of their rounds."""
    yield f"| recipe | engine | precision | s a round | minutes for {PUBLISHED_ROUNDS} rounds |\n|---|---|---|---|---|"
    own = [
        "task.name=benchmarks.gpu_ladder:MadeImages",
        f"train.device={device.type}",
        f"num-server-rounds={rounds + 1}",
    ]
    own += [
        "model.name=digits-cnn",
        "train.epochs=1",
        "federation.num-clients=4",
        "federation.fraction-train=1.0",
    ] * small
    for recipe in RECIPES:
        for engine, precision in WAYS:
            way = f"| {recipe} | {engine} | {precision} |"
            if clock.over("recipe"):
                yield f"{way} no time | |"
                continue
            words = [recipe, *own, f"train.precision={precision}", f"train.engine={engine}"]
            found = round_seconds(make_plan(words, ROOT, ROOT).flat, rounds + 1, device)
            seconds = statistics.median(found[1:])
            yield f"{way} {seconds:.2f} | {PUBLISHED_ROUNDS * seconds / 60:.1f} |"


def main() -> None:
    """Measure and print, row by row: what is cut off by the end of a loan is not lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=6.5, help="after which no further row starts")
    parser.add_argument("--images", type=positive, default=500, help="of a client")
    parser.add_argument("--repeats", type=positive, default=5, help="epochs and rounds of each row, after the first")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--small", action="store_true", help="the recipes with a tiny network, to see that it works")
    args = parser.parse_args()
    device, clock = pick_device("auto"), Clock(60 * args.minutes)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU: shows only that it works"
    print(f"torch {torch.__version__} on {name}\n", flush=True)
    parts = {
        "epoch": lambda: epochs(device, args.images, args.repeats, clock),
        "round": lambda: whole_rounds(device, args.images, args.repeats, clock),
        "recipe": lambda: recipes(device, args.repeats, args.small, clock),
    }
    for part in args.parts:
        for row in parts[part]():
            print(row, flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
