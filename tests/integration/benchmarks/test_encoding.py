"""Benchmark of encoding: its examples tell classes apart, and its steps are the product's."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import encoding
from tasks import client_data
from tasks.client_data import divide


def test_the_cheap_features_are_kept_and_tell_the_classes_apart(tmp_path: Path) -> None:
    task = encoding.task_of(600, tmp_path)
    examples = task.train_examples()
    labels, inputs = torch.from_numpy(examples.labels), task.prepare(examples.features)
    assert inputs.shape == (600, encoding.WIDTH)
    centres = torch.stack([inputs[labels == k].mean(0) for k in range(encoding.CLASSES)])
    assert bool((torch.cdist(inputs, centres).argmin(1) == labels).all())
    assert len(torch.unique(inputs, dim=0)) == 600


def test_a_round_and_a_step_are_measured_and_the_product_finds_its_own_tasks_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = client_data.load_task
    divide.cache_clear()
    found = encoding.rounds(clients=2, examples=20, epochs=1, folder=tmp_path)
    assert all(seconds > 0 for seconds in found.values())
    divide.cache_clear()
    encoding.play("clients", 40, 2, tmp_path)
    memory = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert memory["resident"] >= memory["anonymous"] > 1
    assert client_data.load_task is before
    divide.cache_clear()
