"""Trained model: the best or last model of a run, or an exported one, built again with the task of its inputs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from client_app.methods import METHODS
from server_app.evaluation import Ensemble
from server_app.export.manifest import MANIFEST, manifest, read_manifest
from server_app.preprocessing import FILE as STATISTICS
from server_app.report.files import read_config
from server_app.storage.checkpoints import BEST, LAST, Checkpoint, CheckpointFolder
from server_app.storage.run_directory import CONFIG
from tasks.base import Task
from tasks.client_data import load_task
from tasks.config import DEFAULTS, Flat, parse
from tasks.encoders import EncodedTask
from tasks.encoders.images import read_weights
from tasks.extra_arrays import further_networks, model_part
from tasks.fresh_model import fresh_model
from tasks.protocol import Arrays
from tasks.settings import OLDER_RUNS, Settings
from tasks.weights import load_arrays, tied_names

WEIGHTS = ("model.safetensors", "model.pt")
"""Files of weights that an export may hold."""
CHECKPOINTS = {"best": BEST, "last": LAST}


class ExportError(ValueError):
    """A trained model that is not there, or cannot be built, exported or used; the message says why."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model on the CPU, in evaluation mode.

    Attributes
    ----------
    which, round
        Whether it is the run's ``best`` or ``last`` model, and after which round.
    manifest
        What is known of it without the run's results; see :mod:`server_app.export.manifest`.
    network
        Takes prepared inputs and returns logits (n, K, ...).
    """

    which: str
    round: int
    settings: Settings
    task: Task
    network: nn.Module
    manifest: Mapping[str, Any]

    @torch.no_grad()
    def probabilities(self, inputs: Tensor) -> Tensor:
        """Return the probabilities (n, K, ...) for raw inputs (n, ...): features where there is an encoder."""
        logits: Tensor = self.network(self.task.prepare(inputs))
        return logits.float().softmax(1)

    def predict(self, raw: Tensor) -> Tensor:
        """Return the probabilities (n, K, ...) of raw examples (n, ...) as they were read from files."""
        return self.probabilities(self.task.encoded(raw) if isinstance(self.task, EncodedTask) else raw)


def open_model(folder: Path, which: str = "", data_path: str = "", weights_path: str = "") -> TrainedModel:
    """Return the trained model of a run directory, or of a folder that ``winnow export`` has written.

    Parameters
    ----------
    which
        ``best`` or ``last`` model of a run; empty = the best one if there is one, else the last.
    data_path, weights_path
        In place of those of the run: only encoders with weights in a file need them.

    Raises
    ------
    ExportError
        If there is no such model, or its encoder is another one than in training.
    CheckpointError, ReportError, ConfigError, PluginError, DataError
        If a file is damaged, or a part of the model is not there any more.
    """
    paths = {"task.data-path": data_path, "task.weights-path": weights_path}
    changes: Flat = {key: path for key, path in paths.items() if path}
    if (folder / MANIFEST).is_file():
        return _exported(folder, changes)
    if (folder / CONFIG).is_file():
        return _of_run(folder, which, changes)
    raise ExportError(f"{folder} is neither a run directory ({CONFIG}) nor an exported model ({MANIFEST})")


def _of_run(folder: Path, which: str, changes: Flat) -> TrainedModel:
    checkpoints = CheckpointFolder(folder).path
    which = which or ("best" if (checkpoints / BEST).is_file() else "last")
    if which == "best" and not (checkpoints / BEST).is_file() and (checkpoints / LAST).is_file():
        raise ExportError(f"{folder} has no best model: nothing was held out to choose it by; take the last one")
    checkpoint = Checkpoint.read(checkpoints / CHECKPOINTS[which])
    saved = {key: value for key, value in read_config(folder).items() if key in DEFAULTS}
    flat = {**OLDER_RUNS, **saved, **_kept_with(checkpoints), **changes}
    settings = _for_inference(parse(flat))
    network = _network(settings, checkpoint.model)
    known = _known_manifest(checkpoints, settings)
    return _checked(TrainedModel(which, checkpoint.progress["server_round"], settings, *network, known))


def _kept_with(checkpoints: Path) -> Flat:
    """Return the settings that a run has found out: statistics of columns, and bits of images."""
    found: Flat = {}
    if (checkpoints / MANIFEST).is_file():
        found["task.args"] = read_manifest(checkpoints / MANIFEST)["settings"]["task.args"]
    if (checkpoints / STATISTICS).is_file():
        content = json.loads((checkpoints / STATISTICS).read_bytes())
        content.pop("clients", None)
        found["task.statistics"] = json.dumps(content, ensure_ascii=False)
    return found


def _known_manifest(checkpoints: Path, settings: Settings) -> dict[str, Any]:
    """Return the manifest of a run; one that is older than manifests has none, and gets it now."""
    return read_manifest(checkpoints / MANIFEST) if (checkpoints / MANIFEST).is_file() else manifest(settings)


def _exported(folder: Path, changes: Flat) -> TrainedModel:
    found = read_manifest(folder / MANIFEST)
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise ExportError(
            f"{folder} has no {' or '.join(WEIGHTS)}: predict from the run, or export --format safetensors"
        )
    settings = _for_inference(parse({**found["settings"], **changes}))
    task = load_task(settings.task)
    network = _empty(settings, found["model"]["networks"])
    load_state(network, read_weights(path))
    at = found["checkpoint"]
    return _checked(TrainedModel(at["which"], at["round"], settings, task, network.eval(), found))


def load_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict in which a tensor with several names has one, or raise ``ExportError`` if it does not fit."""
    others = {name: state[first] for name, first in tied_names(network).items() if first in state}
    try:
        network.load_state_dict({**state, **others})
    except RuntimeError as error:
        raise ExportError(f"the weights are those of another model: {' '.join(str(error).split()):.300}") from error


def _for_inference(settings: Settings) -> Settings:
    """Return the settings without what only training needs: all weights are in the checkpoint."""
    return replace(settings, model=replace(settings.model, init="", init_ignore="", freeze=""))


def _network(settings: Settings, arrays: Arrays) -> tuple[Task, nn.Module]:
    task = load_task(settings.task)
    method = METHODS.build(settings.method.name, settings.method.args)
    first = model_part(arrays)
    others = further_networks(arrays).values() if method.ensemble else ()
    network = _empty(settings, 1 + len(others))
    parts = network.networks if isinstance(network, Ensemble) else [network]
    for part, weights in zip(parts, (first, *({**first, **other} for other in others)), strict=True):
        try:
            load_arrays(part, weights)
        except RuntimeError as error:
            raise ExportError(f"the weights are those of another model: {' '.join(str(error).split()):.300}") from error
    return task, network.eval()


def _empty(settings: Settings, networks: int) -> nn.Module:
    models = [fresh_model(settings) for _ in range(networks)]
    return Ensemble(models) if networks > 1 else models[0]


def _checked(model: TrainedModel) -> TrainedModel:
    """Return the model, or raise ``ExportError`` if its encoder is not the one it was trained with."""
    wanted = model.manifest.get("encoder")
    if wanted and wanted["sha256"] != model.task.encoder_digest:
        raise ExportError(
            f"the encoder {wanted['name']!r} here is not the one that the model was trained with (sha256 "
            f"{model.task.encoder_digest[:12]}, expected {wanted['sha256'][:12]}): use the same weights and versions"
        )
    return model
