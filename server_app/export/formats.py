"""Export formats: files of a trained model that others load without Winnow, each checked against it once written.

``safetensors`` and ``state-dict`` hold the weights alone. ``torch-export`` (torch.export), ``torchscript`` (which torch
calls deprecated, for programs that still need it) and ``onnx`` hold the whole model: raw inputs in (uint8 pixels, word
numbers, features), logits and probabilities out. What normalises the inputs is inside, so nobody can guess it wrongly.
"""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from server_app.export.trained import ExportError, TrainedModel, load_state
from tasks.base import Task
from tasks.encoders.images import read_weights
from tasks.inference import sample_inputs
from tasks.plugins import explain
from tasks.weights import weights

INPUTS, OUTPUTS = "inputs", ("logits", "probabilities")
ONNX = 'the format onnx needs its packages: pip install -e ".[onnx]"'


class Deployed(nn.Module):
    """A trained model with its preprocessing: raw inputs (n, ...) to logits and probabilities (n, K, ...)."""

    def __init__(self, task: Task, network: nn.Module) -> None:
        super().__init__()
        self.network, self._prepare = network, task.prepare

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities."""
        logits = self.network(self._prepare(inputs)).float()
        return logits, logits.softmax(1)


@dataclass(frozen=True)
class Format:
    """One format: its file, what writes it, what returns probabilities with it, and by how much these may differ."""

    file: str
    write: Callable[[Path, TrainedModel, Tensor], None]
    answer: Callable[[Path, TrainedModel, Tensor], Tensor]
    tolerance: float = 1e-6


def write_model(name: str, folder: Path, model: TrainedModel) -> Path:
    """Write one format into a folder, load it again and compare it with the model.

    Raises
    ------
    ExportError
        If the model cannot be written in this format, or answers otherwise once it is.
    """
    form, generator = FORMATS[name], torch.Generator().manual_seed(0)
    path = folder / form.file
    tried = sample_inputs(model.task, 3, generator)
    try:
        with _quiet():
            expected = model.probabilities(
                tried
            )  # first: what a task makes on its first call must be no part of a trace
            form.write(path, model, tried)
            worst = _largest_difference(form, path, model, [tried[:1], tried, sample_inputs(model.task, 8, generator)])
    except ExportError:
        raise
    except Exception as error:  # tracing fails in as many ways as there are models
        raise ExportError(f"the model cannot be exported as {name}: {explain(error):.400}") from error
    if not worst <= form.tolerance:  # NaN is not
        path.unlink()
        raise ExportError(
            f"as {name} the model answers otherwise, by up to {worst:.2g} in {len(expected[0])} probabilities: choose "
            "another format"
        )
    return path


def _largest_difference(form: Format, path: Path, model: TrainedModel, batches: list[Tensor]) -> float:
    found = [(form.answer(path, model, batch) - model.probabilities(batch)).abs().max() for batch in batches]
    return float(torch.stack(found).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what exporters say for their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_safetensors(path: Path, model: TrainedModel, tried: Tensor) -> None:
    state = {name: tensor.contiguous() for name, tensor in weights(model.network).items()}
    save_file(state, path, {"format": "pt", "winnow_manifest": json.dumps(dict(model.manifest))})


def _write_state_dict(path: Path, model: TrainedModel, tried: Tensor) -> None:
    torch.save(dict(model.network.state_dict()), path)


def _answer_weights(path: Path, model: TrainedModel, inputs: Tensor) -> Tensor:
    network = copy.deepcopy(model.network)
    for tensor in network.state_dict().values():
        tensor.zero_()
    load_state(network, read_weights(path))
    found: Tensor = Deployed(model.task, network)(inputs)[1]
    return found


def _write_export(path: Path, model: TrainedModel, tried: Tensor) -> None:
    torch.export.save(_exported(model, tried), path)


def _exported(model: TrainedModel, tried: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    return torch.export.export(Deployed(model.task, model.network), (tried,), dynamic_shapes=({0: batch},))


def _answer_export(path: Path, model: TrainedModel, inputs: Tensor) -> Tensor:
    found: Tensor = torch.export.load(path).module()(inputs)[1]
    return found


def _write_torchscript(path: Path, model: TrainedModel, tried: Tensor) -> None:
    deployed = Deployed(model.task, model.network)
    traced = torch.jit.trace(deployed, tried, check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path))


def _answer_torchscript(path: Path, model: TrainedModel, inputs: Tensor) -> Tensor:
    found: Tensor = torch.jit.load(str(path))(inputs)[1]  # type: ignore[no-untyped-call]
    return found


def _write_onnx(path: Path, model: TrainedModel, tried: Tensor) -> None:
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise ExportError(f"{ONNX} (missing: {', '.join(missing)})")
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        Deployed(model.task, model.network),
        (tried,),
        path,
        dynamo=True,
        dynamic_shapes=({0: batch},),
        input_names=[INPUTS],
        output_names=list(OUTPUTS),
        external_data=False,
        verbose=False,
    )


def _answer_onnx(path: Path, model: TrainedModel, inputs: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["probabilities"], {INPUTS: inputs.numpy()})[0])


FORMATS = {
    "safetensors": Format("model.safetensors", _write_safetensors, _answer_weights),
    "state-dict": Format("model.pt", _write_state_dict, _answer_weights),
    "torch-export": Format("model.pt2", _write_export, _answer_export),
    "torchscript": Format("model.torchscript", _write_torchscript, _answer_torchscript),
    "onnx": Format("model.onnx", _write_onnx, _answer_onnx, tolerance=1e-5),
}
