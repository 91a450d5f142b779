"""Export of a trained model into a folder of its own: formats, manifest, model card."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server_app.export.card import model_card
from server_app.export.formats import FORMATS, INPUTS, OUTPUTS, write_model
from server_app.export.manifest import MANIFEST, as_bytes
from server_app.export.trained import ExportError, TrainedModel
from server_app.report.reading import RunRecord
from server_app.report.results import NO_MEASURES
from server_app.report.text import measure_names
from tasks.files import replace_file
from tasks.inference import sample_inputs

CARD = "README.md"


def export_model(
    model: TrainedModel, record: RunRecord, folder: Path, formats: Sequence[str], licence: str = "", name: str = ""
) -> list[Path]:
    """Write a model in some formats, its manifest and its card into a folder; return the files.

    What an earlier export has left there is replaced.

    Raises
    ------
    ExportError
        If the folder holds anything else, or the model cannot be exported in a format.
    WriteError
        If a file cannot be written.
    """
    _make_room(folder)
    files = {}
    for form in formats:
        path = write_model(form, folder, model)
        files[path.name] = {"format": form, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    content = export_manifest(model, record, files, licence, name)
    replace_file(folder / MANIFEST, as_bytes(content))
    replace_file(folder / CARD, model_card(content, record).encode())
    return [folder / one for one in (*files, MANIFEST, CARD)]


def export_manifest(
    model: TrainedModel, record: RunRecord, files: Mapping[str, Any], licence: str = "", name: str = ""
) -> dict[str, Any]:
    """Return the manifest of an export: that of the run, and what the run achieved."""
    tried = sample_inputs(model.task, 1, _generator())
    shape = ["n", *tried.shape[1:]]
    answer = ["n", *model.probabilities(tried).shape[1:]]
    known = {**model.manifest, "model": {**model.manifest["model"], "parameters": _parameters(model)}}
    return {
        **known,
        "name": name or (record.path.name if record.label == "winnow" else record.label),
        "run": record.path.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": {"which": model.which, "round": model.round},
        "inputs": {INPUTS: {"shape": shape, "dtype": str(tried.dtype).removeprefix("torch.")}},
        "outputs": {output: {"shape": answer, "dtype": "float32"} for output in OUTPUTS},
        "metrics": measures_at(record, model.round),
        "versions": dict(record.versions),
        "licence": licence,
        "files": dict(files),
    }


def measures_at(record: RunRecord, number: int) -> dict[str, float]:
    """Return what was measured of the model after a round, on test and on validation data and at the clients."""
    values = next((entry.values for entry in record.rounds if entry.number == number), {})
    names = [name for name in measure_names(record) if name in values and name not in NO_MEASURES]
    return {name: values[name] for name in names if not name.startswith("train_")}


def _parameters(model: TrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def _generator() -> Any:
    import torch

    return torch.Generator().manual_seed(0)


def _make_room(folder: Path) -> None:
    """Make the folder, or clear an earlier export out of it.

    Raises
    ------
    ExportError
        If it holds anything else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {path.name for path in folder.iterdir()}
        ours = {CARD, MANIFEST, *(form.file for form in FORMATS.values())}
        if found - ours or (CARD in found and MANIFEST not in found):
            others = ", ".join(sorted(found - ours)[:3]) or f"{CARD} without a manifest"
            raise ExportError(f"{folder} holds other files ({others}): name a new folder, --output DIR")
        for name in sorted(found, key=lambda name: name == MANIFEST):  # last: by it the folder is known to be ours
            (folder / name).unlink()
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror or error}") from error
