"""The published CIFAR-10 files, read by the task and by torchvision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from tasks.base import Task
from tasks.images import Cifar10
from tasks.registry import TASKS

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def task(data_root: Path) -> Task:
    loaded = TASKS.build("cifar-10", data_path=data_root)
    loaded.check()
    return loaded


@pytest.mark.parametrize(("train", "count"), [(True, 50_000), (False, 10_000)])
def test_images_and_labels_are_those_of_torchvision(task: Task, data_root: Path, train: bool, count: int) -> None:
    examples = task.train_examples() if train else task.test_examples()
    shown = datasets.CIFAR10(data_root, train=train)
    assert examples.features.shape == (count, 3, 32, 32)
    assert examples.features.dtype == torch.uint8
    assert np.bincount(examples.labels).tolist() == [count // 10] * 10
    assert examples.labels.tolist() == shown.targets
    assert np.array_equal(examples.features.permute(0, 2, 3, 1).numpy(), shown.data)
    assert tuple(shown.classes) == task.class_names


def test_first_image_is_the_frog(task: Task) -> None:
    examples = task.train_examples()
    assert task.class_names[examples.labels[0]] == "frog"
    assert examples.features[0, :, 0, 0].tolist() == [59, 62, 63]  # red, green, blue of the corner


def test_constants_normalise_the_training_images(task: Task) -> None:
    pixels = task.prepare(task.train_examples().features[:10_000])
    assert pixels.mean((0, 2, 3)).abs().max().item() < 0.02
    assert (pixels.std((0, 2, 3)) - 1).abs().max().item() < 0.02


def test_subset_keeps_its_place_in_the_published_order(task: Task, data_root: Path) -> None:
    some = Cifar10(data_root, train_samples=500, test_samples=100)
    places = some.positions("train")
    assert np.array_equal(some.train_examples().labels, task.train_examples().labels[places])
    assert torch.equal(some.test_examples().features, task.test_examples().features[some.positions("test")])
    assert np.bincount(some.train_examples().labels, minlength=10).min() > 25
