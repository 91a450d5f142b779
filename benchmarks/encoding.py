"""Frozen features: what encoding costs beyond the encoder, the memory of a million examples, a round on them.

    python -m benchmarks.encoding overhead
    python -m benchmarks.encoding memory --count 1000000 --folder /a/folder/with/2.6/GB
    python -m benchmarks.encoding round --epochs 5

CPU seconds count, not the clock, so that other work on the machine matters little. The memory of each step is that of a
process of its own: what it has for itself (anonymous), and with the pages of the file that are mapped (resident), which
the system takes back whenever it needs them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.in_process import Federation
from benchmarks.training_step import cpu_seconds
from tasks.base import Examples, Labels, Task
from tasks.client_data import client_dataset
from tasks.encoders import EncodedTask, Encoder, FeatureStore
from tasks.encoders.images import efficientnet_lite0
from tasks.settings import (
    EvaluateSettings,
    FederationSettings,
    LossSettings,
    ModelSettings,
    NoiseSettings,
    PartitionSettings,
    Settings,
    TaskSettings,
    TrainSettings,
)

WIDTH, CLASSES = 1280, 10
READERS = (
    "tasks.client_data",
    "tasks.fresh_model",
    "client_app.local",
    "server_app.evaluation",
    "benchmarks.in_process",
)
STEPS = ("import", "encode", "read", "client", "clients")


class Numbers(Task):
    """Examples that are their own numbers; ``pixels`` a side where they are to be images."""

    class_names = tuple(map(str, range(CLASSES)))
    default_model = "linear"
    input_shape = (1,)
    encodes_as = "images"

    def __init__(self, count: int, tests: int = 0, pixels: int = 0) -> None:
        self.parts = {"train": self._made(count, pixels), "test": self._made(tests, pixels)}

    def _made(self, count: int, pixels: int) -> Examples:
        labels = np.arange(count) % CLASSES
        if not pixels:
            return Examples(torch.arange(count), labels)
        drawn = torch.randint(256, (count, 3, pixels, pixels), generator=torch.Generator().manual_seed(count))
        return Examples(drawn.to(torch.uint8), labels)

    def train_examples(self) -> Examples:
        """Return the examples to learn from."""
        return self.parts["train"]

    def test_examples(self) -> Examples:
        """Return the examples of the test."""
        return self.parts["test"]

    def has_test_examples(self) -> bool:
        """Tell whether there are any."""
        return len(self.parts["test"]) > 0

    def train_labels(self) -> Labels:
        """Return the labels."""
        return self.parts["train"].labels

    def data_state(self, part: str, cache: Path) -> str:
        """Return the number of examples."""
        return str(len(self.parts[part]))

    def encoder_inputs(self, features: Tensor) -> Tensor:
        """Return images between 0 and 1, or the numbers."""
        return features / 255 if features.dim() == 4 else features

    def prepare(self, features: Tensor) -> Tensor:
        """Return what a model takes."""
        return features.float()

    def build_model(self, name: str, args: str) -> nn.Module:
        """Refuse: the features are learned from."""
        raise NotImplementedError("the examples are numbers: a head learns from their features")


class Cheap(Encoder):
    """Features that cost next to nothing: a fixed direction for each class and a wave, different for each example."""

    reads = "images"
    width = WIDTH
    batch_size = 256

    def __init__(self) -> None:
        self._classes = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the features (n, 1280) of numbers (n,)."""
        return self._classes[inputs % CLASSES] + (inputs[:, None] * 0.37 + torch.arange(WIDTH)).sin()

    def digest(self) -> str:
        """Return what stands for it."""
        return "cheap"


def task_of(count: int, folder: Path, tests: int = 0) -> EncodedTask:
    """Return numbers with their features."""
    encoder = Cheap()
    return EncodedTask(Numbers(count, tests), encoder, encoder.digest(), FeatureStore(folder), "benchmark")


def overhead(count: int, repeats: int) -> dict[str, float]:
    """Return the CPU seconds of encoding, of the network's own forward passes on the same images, and their ratio.

    Both are played in turn, in batches of the same size; the least of each counts.
    """
    encoder = efficientnet_lite0(precision="float32")
    raw = Numbers(count, pixels=32)
    images = torch.nn.functional.interpolate(raw.train_examples().features / 255, (96, 96), mode="bilinear")
    batches = torch.split(images.contiguous(memory_format=torch.channels_last), encoder.batch_size)
    found: dict[str, list[float]] = {"encoding": [], "forward": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            task = EncodedTask(raw, encoder, "", FeatureStore(Path(folder)), "")
            found["encoding"].append(cpu_seconds(lambda task=task: task.train_examples()))
        found["forward"].append(cpu_seconds(lambda: [forward(encoder, batch) for batch in batches]))
    least = {name: min(times) for name, times in found.items()}
    return {**least, "ratio": least["encoding"] / least["forward"]}


@torch.no_grad()
def forward(encoder: Any, images: Tensor) -> Tensor:
    """Return what the network alone makes of images of its size."""
    return torch.as_tensor(encoder._network(images))


def memory(count: int, clients: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return the largest memory (MB) of processes that encode, read, and take the data of one client and of all."""
    found = {}
    for step in STEPS:
        command = [sys.executable, "-m", "benchmarks.encoding", "step", step]
        command += ["--count", str(count), "--clients", str(clients), "--folder", str(folder)]
        found[step] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {step: {name: value - found["import"][name] for name, value in found[step].items()} for step in STEPS[1:]}


def play(step: str, count: int, clients: int, folder: Path) -> None:
    """Do one step in this process, and print the memory that it took."""
    task = task_of(count, folder)
    anonymous = memory_now()["anonymous"]
    if step == "encode":
        task.train_examples()
    elif step == "read":
        for part in torch.split(task.train_examples().features, 4096):
            task.prepare(part).sum()
    elif step in ("client", "clients"):
        settings = settings_of(clients, epochs=1)
        with task_in_place(task):
            for client in range(clients if step == "clients" else 1):
                client_dataset(settings, client)
                anonymous = max(anonymous, memory_now()["anonymous"])
    now = memory_now()
    print(json.dumps({"anonymous": max(anonymous, now["anonymous"]), "resident": now["peak"]}))


def memory_now() -> dict[str, float]:
    """Return what this process has for itself, and the most that was ever resident, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {name: int(lines[key].split()[0]) / 1024 for name, key in (("anonymous", "RssAnon"), ("peak", "VmHWM"))}


def settings_of(clients: int, epochs: int) -> Settings:
    """Return the settings of a run with a linear head on features, ten clients a round."""
    return Settings(
        num_server_rounds=6,
        federation=FederationSettings(num_clients=clients, fraction_train=min(1.0, 10 / clients)),
        task=TaskSettings("features"),
        model=ModelSettings("linear"),
        partition=PartitionSettings("iid", ""),
        noise=NoiseSettings("symmetric", "", "constant", "rate = 0.3"),
        loss=LossSettings("fsanl"),
        train=TrainSettings(learning_rate=0.01, epochs=epochs, batch_size=64, threads=1, device="cpu"),
        evaluate=EvaluateSettings(every=1000, validation=0.0),
    )


@contextmanager
def task_in_place(task: Task) -> Iterator[None]:
    """Let the product find this task, whatever the settings name."""
    with ExitStack() as replaced:
        for module in READERS:
            replaced.enter_context(patch(f"{module}.load_task", lambda _: task))
        yield


def rounds(clients: int, examples: int, epochs: int, folder: Path) -> dict[str, float]:
    """Return the least CPU seconds of a round of ten clients, and of as many steps of plain PyTorch."""
    task = task_of(clients * examples, folder, tests=10)
    task.train_examples()
    settings = settings_of(clients, epochs)
    with task_in_place(task):
        play = Federation(settings).rounds(first_measured=1000)
        steps = min(10, clients) * epochs * -(-examples // settings.train.batch_size)
        found = [
            (cpu_seconds(partial(next, play)), cpu_seconds(partial(plain_steps, task, steps)))
            for _ in range(settings.num_server_rounds)
        ]
    return {"round": min(ours for ours, _ in found), "plain PyTorch": min(plain for _, plain in found)}


def plain_steps(task: EncodedTask, steps: int) -> None:
    """Train a linear head with cross-entropy and SGD, as one writes it, on features that are scaled in each step."""
    head = nn.Linear(WIDTH, CLASSES)
    optimizer = torch.optim.SGD(head.parameters(), 0.01, momentum=0.9)
    examples = task.train_examples()
    features, labels = examples.features[:512].clone(), torch.from_numpy(examples.labels[:512])
    for _ in range(steps):
        batch = torch.randint(len(labels), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(task.prepare(features[batch])), labels[batch]).backward()
        nn.utils.clip_grad_norm_(head.parameters(), 5.0)
        optimizer.step()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "memory", "round", "step"))
    parser.add_argument("step", nargs="?", choices=STEPS)
    parser.add_argument("--count", type=int, default=512, help="examples that are encoded")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--examples", type=int, default=500, help="of each client of a round")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where features are kept for the time of the measurement")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "step":
        return play(given.step, given.count, given.clients, given.folder)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="winnow-encoding-") as folder:
        if given.what == "overhead":
            found: dict[str, Any] = overhead(given.count, given.repeats)
        elif given.what == "memory":
            found = memory(given.count, given.clients, Path(folder))
        else:
            found = rounds(given.clients, given.examples, given.epochs, Path(folder))
    print(json.dumps(found, indent=2))
    return None


if __name__ == "__main__":
    main()
