"""Manifest of a trained model: what its weights mean nothing without, as JSON.

Task, model, classes in the order of the outputs, preprocessing with all numbers, encoder with its digest, and the
settings from which all of it is built again. It lies beside the checkpoints of every run from round 0 on; an export
adds where the weights come from, what they achieved, versions, licence and the digests of its files.
"""

import json
from pathlib import Path
from typing import Any

from client_app.methods import METHODS
from server_app.callbacks.base import Callback
from server_app.state import RunState
from server_app.storage.checkpoints import CheckpointFolder
from tasks.arguments import merge_args
from tasks.base import Task
from tasks.client_data import load_task
from tasks.config import Flat, to_flat
from tasks.encoders import EncodedTask
from tasks.files import replace_file
from tasks.inference import Predictive
from tasks.settings import Settings

MANIFEST = "manifest.json"
VERSION = 1
REBUILT: tuple[str, ...] = ("seed", "task.name", "task.args", "task.encoder", "task.encoder-args", "task.statistics")
REBUILT += ("model.name", "model.args", "method.name", "method.args", "evaluate.batch-size")
"""Settings by which a trained model is built again; its weights are all in the checkpoint, frozen ones too."""


class ManifestFile(Callback):
    """Keeps the manifest beside the checkpoints; after round 0, when what had to be found in the data is known."""

    def __init__(self) -> None:
        self._written = b""

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Write it if it is not what was written last."""
        content = as_bytes(manifest(state.settings))
        if content != self._written:
            path = CheckpointFolder(state.directory.path).path / MANIFEST
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
            self._written = content
        return ""


def manifest(settings: Settings) -> dict[str, Any]:
    """Return the manifest of what a run with these settings trains; statistics in them are the merged ones."""
    task = load_task(settings.task)
    method = METHODS.build(settings.method.name, settings.method.args)
    name = task.default_model if settings.model.name == "auto" else settings.model.name
    return {
        "winnow_manifest": VERSION,
        "task": {"name": settings.task.name, "args": settings.task.args},
        "model": {"name": name, "args": settings.model.args, "networks": method.networks if method.ensemble else 1},
        "classes": list(task.class_names),
        "labels_pixels": task.labels_pixels,
        "preprocessing": task.preprocessing() if isinstance(task, Predictive) and readable(task) else None,
        "encoder": _encoder(settings, task),
        "settings": rebuilding(settings, task),
    }


def readable(task: Task) -> bool:
    """Tell whether files without labels can be read for a task; one with an encoder reads what its inner task does."""
    return isinstance(task.raw, Predictive)


def rebuilding(settings: Settings, task: Task) -> Flat:
    """Return the settings from which the model and its task are built again, anywhere."""
    flat = to_flat(settings)
    found: Flat = {key: flat[key] for key in REBUILT}
    bits = getattr(task.raw, "known_bits", lambda: 0)()
    if bits:  # found in the data of the run, which need not be there again
        found["task.args"] = merge_args(str(found["task.args"]), f"bits = {bits}")
    return found


def _encoder(settings: Settings, task: Task) -> dict[str, Any] | None:
    if not isinstance(task, EncodedTask):
        return None
    name, args = settings.task.encoder, settings.task.encoder_args
    return {"name": name, "args": args, "width": task.encoder.width, "sha256": task.encoder_digest}


def as_bytes(content: dict[str, Any]) -> bytes:
    """Return a manifest as it is written."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest in a file.

    Raises
    ------
    ValueError
        If it holds anything else, or one of a later version.
    """
    try:
        found = json.loads(path.read_bytes())
        version, settings = found["winnow_manifest"], found["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest of a trained model: {type(error).__name__}: {error}") from error
    if version != VERSION or not isinstance(settings, dict):
        raise ValueError(f"{path} is a manifest of version {version}, this Winnow reads {VERSION}: use a newer one")
    return dict(found)
