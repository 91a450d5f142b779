"""Local training in the ways that ``benchmarks/peers.py`` compares: the usual Flower app, plain PyTorch, ours, pfl.

All ways train the same networks from the same weights on the same clients, one after the other, an epoch each, with
SGD on cross-entropy unless the name says else. Pictures are made, so no data is needed: each class has a colour.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.in_process import Federation
from client_app.acceleration import decided
from client_app.attacks import run_client
from client_app.methods import RoundConfig
from strategies.validation import to_numpy, to_record
from tasks.augmentation import crop_and_flip
from tasks.base import ClientData, Examples, Task
from tasks.client_data import client_dataset, load_task
from tasks.config import Flat, parse
from tasks.fresh_model import fresh_model
from tasks.images import ImageTask
from tasks.protocol import Arrays, Mode
from tasks.seeds import rng
from tasks.settings import AUTO, Settings
from tasks.weights import load_arrays, model_arrays

CPU = torch.device("cpu")
SEED, MOMENTUM, CLIP, PADDING = 1, 0.9, 5.0, 4
NONE: Flat = {}
DIGITS, DIGITS_EXAMPLES = "digits", 1437


class Pictures(ImageTask):
    """Made pictures, 3x32x32 as those of CIFAR-10: a colour for each of ten classes, and noise."""

    class_names = tuple("0123456789")
    default_model = "cnn8"
    input_shape = (3, 32, 32)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self, count: int) -> None:
        draw, labels = rng(SEED, "pictures"), np.arange(count) % 10
        colours = draw.integers(50, 206, (10, 3, 1, 1))
        images = colours[labels] + draw.integers(-50, 50, (count, *self.input_shape))
        self._examples = Examples(torch.from_numpy(images.astype(np.uint8)), labels)

    def train_examples(self) -> Examples:
        """Return all of them."""
        return self._examples

    def test_examples(self) -> Examples:
        """Return the same ones: nothing is measured on them."""
        return self._examples

    def augment(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Return pictures cropped and mirrored as those of CIFAR-10 are."""
        return crop_and_flip(features, generator, padding=PADDING)


def two_convolutions(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """The network of pfl-research's CIFAR-10 benchmark: 32 and 64 filters, 128 hidden units, dropout."""
    channels, height, width = input_shape
    size = 64 * ((height - 4) // 2) * ((width - 4) // 2)
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
        *(nn.Flatten(), nn.Linear(size, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, num_classes)),
    )


@dataclass(frozen=True)
class Workload:
    """A network, its batch, and how many clients with how many examples train it once."""

    model: str
    batch_size: int
    clients: int
    examples: int
    rate: float = 0.02
    task: str = "benchmarks.peer_ways:Pictures"

    def settings(self, changes: Flat = NONE) -> Settings:
        """Return the settings of a run of the product with this workload; ``changes`` are keys of its configuration."""
        keys: Flat = {
            **{"task.name": self.task, "model.name": self.model, "seed": SEED},
            **{"partition.name": "iid", "partition.args": "", "noise.name": "none"},
            **{"train.epochs": 1, "train.batch-size": self.batch_size, "train.learning-rate": self.rate},
            **{"train.device": "cpu", "train.threads": torch.get_num_threads(), "evaluate.validation": 0.0},
        }
        if self.task == DIGITS:
            keys["federation.num-clients"] = DIGITS_EXAMPLES // self.examples  # of which ``clients`` train
        else:
            keys |= {"federation.num-clients": self.clients, "task.args": f"count = {self.clients * self.examples}"}
        return parse(keys | changes)


@dataclass(frozen=True)
class Trained:
    """What a turn did: the weights of the last client's model, by name, and how many examples were trained on."""

    weights: Arrays
    examples: int


Turn = Callable[[], Trained]


@dataclass
class Case:
    """A workload with its clients' data and the weights that all start from."""

    workload: Workload
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.settings = self.workload.settings()

    @cached_property
    def task(self) -> ImageTask:
        """The product's task."""
        task = load_task(self.settings.task)
        assert isinstance(task, ImageTask)
        return task

    @cached_property
    def clients(self) -> list[ClientData]:
        """Each client's raw examples."""
        return [client_dataset(self.settings, client).data for client in range(self.workload.clients)]

    @cached_property
    def weights(self) -> Arrays:
        """The weights that every client starts from; copies."""
        return {name: array.copy() for name, array in model_arrays(fresh_model(self.settings)).items()}

    @cached_property
    def augments(self) -> bool:
        """Whether the task changes its examples at random."""
        return type(self.task).augment is not Task.augment

    def model(self) -> nn.Module:
        """Return the network with those weights."""
        model = fresh_model(self.settings)
        load_arrays(model, self.weights)
        return model.train()

    def loss(self, weights: Arrays) -> float:
        """Return the mean cross-entropy of a model on the last client's examples, dropout off.

        Batch normalisation uses the batch's statistics: those that it keeps are of few batches.
        """
        model = copy.deepcopy(self.model())
        load_arrays(model, weights)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        data = self.clients[-1]
        with torch.no_grad():
            return F.cross_entropy(model(self.task.prepare(data.features)), torch.from_numpy(data.labels)).item()


class PilImages(Dataset[Any]):
    """Images that are opened one at a time, as torchvision's data sets do it."""

    def __init__(self, data: ClientData, brightest: int, transform: Callable[[Any], Tensor]) -> None:
        scaled = data.features.numpy().astype(np.uint16) * 255 // brightest
        self._images = np.ascontiguousarray(scaled.astype(np.uint8).transpose(0, 2, 3, 1).squeeze())
        self._labels, self._transform = data.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def usual_app(case: Case) -> Turn:
    """Return local training as the tutorials of Flower and PyTorch write it: transforms on PIL images, a DataLoader."""
    task, work = case.task, case.workload
    side = task.input_shape[1]
    drawn = [transforms.RandomCrop(side, PADDING), transforms.RandomHorizontalFlip()] if case.augments else []
    normalise = transforms.Normalize(task.mean, task.std)
    transform = transforms.Compose([*drawn, transforms.ToTensor(), normalise])
    sets = [PilImages(data, task.brightest, transform) for data in case.clients]

    def one(examples: PilImages) -> tuple[nn.Module, int]:
        model, seen, running_loss = case.model(), 0, 0.0
        optimizer = torch.optim.SGD(model.parameters(), work.rate, momentum=MOMENTUM)
        criterion = nn.CrossEntropyLoss()
        for images, labels in DataLoader(examples, batch_size=work.batch_size, shuffle=True):
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            seen += len(labels)
        return model, seen

    return lambda: every(one, sets)


def plain_loop(case: Case, precision: str = "float32", channels_last: bool = False) -> Turn:
    """Return the floor: what a step needs and nothing else, on normalised tensors, with clipping as we have it."""
    work, layout = case.workload, torch.channels_last if channels_last else torch.contiguous_format
    inputs = [case.task.prepare(data.features).contiguous(memory_format=layout) for data in case.clients]
    sets = [(x, torch.from_numpy(data.labels)) for x, data in zip(inputs, case.clients, strict=True)]

    def one(examples: tuple[Tensor, Tensor]) -> tuple[nn.Module, int]:
        features, labels = examples
        model, seen = case.model().to(memory_format=layout), 0
        parameters = list(model.parameters())
        optimizer = torch.optim.SGD(parameters, work.rate, momentum=MOMENTUM)
        for batch in torch.randperm(len(labels)).split(work.batch_size):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = F.cross_entropy(model(features[batch]).float(), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            seen += len(batch)
        return model, seen

    return lambda: every(one, sets)


def ours(case: Case, changes: Flat) -> Turn:
    """Return the product's own local training, client by client."""
    settings = case.workload.settings(changes)
    train = decided(settings.train, case.task, case.model(), CPU, Mode.SIMULATION)  # as the server does it, once
    settings = replace(settings, train=train)

    def one(data: ClientData) -> tuple[nn.Module, int]:
        model = case.model()
        run_client(model, data, settings, RoundConfig(1, case.workload.rate, (SEED, data.client, 1)), None, CPU)
        return model, len(data) * settings.train.epochs

    return lambda: every(one, case.clients)


def side_by_side(case: Case, changes: Flat) -> Turn:
    """Return the same through the federation in one process, which trains clients together where the product can."""
    settings = case.workload.settings({**changes, "federation.fraction-train": 1.0})
    federation = Federation(settings)
    federation.clients.server_round = 1
    sent = to_record(case.weights)
    asked = [*federation.strategy.configure_train(1, sent, ConfigRecord(), federation.clients)]
    messages = sorted(asked, key=lambda message: message.metadata.dst_node_id)[: case.workload.clients]

    def train() -> Trained:
        replies = [*federation.clients.send_and_receive(messages)]
        examples = sum(int(reply.content.metric_records["metrics"]["num-examples"]) for reply in replies)
        return Trained(to_numpy(replies[-1].content.array_records["arrays"]), examples * settings.train.epochs)

    return train


def every(one: Callable[[Any], tuple[nn.Module, int]], sets: Sequence[Any]) -> Trained:
    """Train client by client."""
    models, counts = zip(*(one(examples) for examples in sets), strict=True)
    return Trained(model_arrays(models[-1]), sum(counts))


USUAL, PLAIN = "usual app", "plain loop, {}"


def in_process(case: Case, bfloat16: bool) -> Mapping[str, Turn]:
    """Return all ways that run in this process, by name; those in bfloat16 where they are asked for."""
    formats = ("float32", "bfloat16") if bfloat16 else ("float32",)
    ways = {USUAL: usual_app(case)}
    for precision in formats:
        ways[PLAIN.format(precision)] = plain_loop(case, precision)
        ways[f"{PLAIN.format(precision)}, channels-last"] = plain_loop(case, precision, channels_last=True)
    for precision in formats:
        for loss in ("ce", "anl-ce", "fsanl"):
            keys: Flat = {"loss.name": loss, "train.precision": precision}
            ways[f"winnow {loss}, {precision}"] = ours(case, keys | {"train.augment": False})
            if case.augments:
                ways[f"winnow {loss}, {precision}, augmented"] = ours(case, keys)
    for loss in ("ce", "fsanl"):
        ways[f"winnow {loss}, auto"] = ours(case, {"loss.name": loss, "train.precision": AUTO})
        ways[f"winnow {loss}, side by side"] = side_by_side(case, {"loss.name": loss, "train.cohort": AUTO})
    return ways
