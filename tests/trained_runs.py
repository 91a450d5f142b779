"""Models with random weights, and run directories that hold one: nothing is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from torch import nn

from server_app.export.manifest import manifest
from server_app.export.trained import TrainedModel
from server_app.storage.checkpoints import Checkpoint, CheckpointFolder
from tasks.client_data import load_task
from tasks.config import nest, parse
from tasks.fresh_model import fresh_model
from tasks.weights import model_arrays
from tests.run_directories import accuracies, validated, write_run

DIGITS = {"model.name": "linear"}


def trained(network: nn.Module | None = None, **flat: Any) -> TrainedModel:
    """A model with random weights."""
    settings = parse(flat or DIGITS)
    task = load_task(settings.task)
    built = fresh_model(settings) if network is None else network
    torch.manual_seed(1)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.1)
    return TrainedModel("last", 2, settings, task, built.eval(), manifest(settings))


def run_of(path: Path, **flat: Any) -> Path:
    """A run directory with such a model as its last one."""
    model = trained(**flat)
    write_run(path, validated(accuracies(0.1, 0.2, 0.3), 0.1, 0.2, 0.3))
    (path / "config.toml").write_text(tomli_w.dumps(nest(flat or DIGITS)))
    arrays = {name: np.array(array) for name, array in model_arrays(model.network).items()}
    CheckpointFolder(path).save(Checkpoint(arrays, {}, {"server_round": 2}))
    return path
