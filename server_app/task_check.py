"""A task that the user brought along, before anything depends on it: its data must be what its methods promise."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.base import Examples, Task
from tasks.plugin import is_own
from tasks.settings import TaskSettings
from tasks.shares import load_task

SAMPLE = 8


def check_declarations(settings: TaskSettings) -> None:
    """Build the task, and raise ``ValueError`` if it does not say what its classes, inputs and model are."""
    task, label = load_task(settings), f"task {settings.name!r}: "
    for name in ("class_names", "default_model", "input_shape"):
        expect(hasattr(task, name), f"{label}the class needs the attribute {name}")
    expect(len(task.class_names) >= 2, f"{label}class_names must hold at least 2 names, got {task.class_names}")


def check_data(settings: TaskSettings) -> None:
    """Raise ``ValueError`` if examples or inputs are not as declared; built-in data sets have tests of their own."""
    task, label = load_task(settings), f"task {settings.name!r}: "
    if task.brings_own_data:
        task.train_examples()
        check_test_data(task)
    if not is_own(settings.name):
        return
    _check_examples(task.train_examples(), task, f"{label}train_examples")
    if task.has_test_examples():
        _check_examples(task.test_examples(), task, f"{label}test_examples")
    names, count = list(task.example_names(task.train_ids())), len(task.train_examples())
    told = all(isinstance(name, str) for name in names) and len(names) == count
    expect(
        told, f"{label}example_names must return one text for each of the {count} ids, got {len(names)}: {names[:3]}"
    )
    raw = task.train_examples().features[:SAMPLE]
    inputs = task.prepare(raw)
    expect(inputs.dtype == torch.float32, f"{label}prepare must return float32, got {inputs.dtype}")
    expected, got = (len(raw), *task.input_shape), tuple(inputs.shape)
    expect(got == expected, f"{label}prepare must return {expected} for input_shape {task.input_shape}, got {got}")


def check_test_data(task: Task) -> None:
    """Raise ``DataError`` if there is test data and it cannot be used."""
    if task.has_test_examples():
        task.test_examples()


def _check_examples(examples: Any, task: Task, label: str) -> None:
    found = type(examples).__name__
    expect(isinstance(examples, Examples), f"{label} must return tasks.base.Examples, got {found}")
    features, labels = examples.features, examples.labels
    expect(len(examples) > 0, f"{label} returned no examples: at least one is needed")
    expect(isinstance(features, Tensor), f"{label}: features must be a tensor, got {type(features).__name__}")
    kind = labels.dtype if isinstance(labels, np.ndarray) else type(labels).__name__
    expect(kind == np.int64, f"{label}: labels must be a NumPy array of int64, got {kind}")
    low, high = labels.min(), labels.max()
    in_range = low >= 0 and high < task.num_classes
    expect(in_range, f"{label}: labels must lie in 0..{task.num_classes - 1}, but run from {low} to {high}")


def expect(condition: bool, message: str) -> None:
    """Raise ``ValueError`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)
