"""Initial weights of a model from a file (``model.init``): training starts from them instead of random ones.

The coordinator alone needs the file, because its model travels in the first round. Where parts are frozen, which never
travel, every site needs it; see :mod:`tasks.frozen_parts`.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from tasks.base import DataError
from tasks.encoders.images import read_weights, weights_file
from tasks.frozen_parts import matched
from tasks.issues import listed
from tasks.protocol import OF_STRATEGY
from tasks.settings import ModelSettings
from tasks.weights import tied_names, weights

COUNTER = ".num_batches_tracked"
"""Counters that BatchNorm did not have at first; files without them are read, as torch does."""


def load_initial_weights(model: nn.Module, settings: ModelSettings, folder: Path) -> nn.Module:
    """Load the weights of ``model.init``, a file below ``folder``, into a model in place, and return it.

    The file is .safetensors, such as a run's checkpoint, or a state dict that ``torch.save`` wrote. Tensors whose names
    match ``model.init-ignore`` are left out of it, and keep the values that the model has.

    Raises
    ------
    DataError
        If the file cannot be read, or does not hold exactly the other tensors of the model, with finite values.
    """
    path = weights_file(folder, settings.init, "model.init")
    said = f"model.init = {settings.init!r}"
    own, tied = weights(model), tied_names(model)
    given = {name: tensor for name, tensor in read_weights(path).items() if not name.startswith(OF_STRATEGY)}
    left_out = matched(dict.fromkeys([*own, *given]), settings.init_ignore, "model.init-ignore", "all tensors")
    first = {tied.get(name, name): tensor for name, tensor in reversed(given.items()) if name not in left_out}
    needed = {name: tensor for name, tensor in own.items() if name not in left_out}
    _check_names(said, needed, first)
    _check_shapes(said, needed, first)
    odd = [name for name in needed if name in first and not bool(first[name].isfinite().all())]
    if odd:
        raise DataError(f"{said}: {listed(odd)}: values that are no numbers (NaN or infinite)")
    with torch.no_grad():
        for name, tensor in needed.items():
            if name in first:
                tensor.copy_(first[name])
    return model


def file_digest(settings: ModelSettings, folder: Path) -> str:
    """Return the SHA-256 of the file of ``model.init``, for the record of the run."""
    with weights_file(folder, settings.init, "model.init").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_names(said: str, needed: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Raise ``DataError`` unless the file has all tensors that the model needs, and no others."""
    missing = [name for name in needed if name not in given and not name.endswith(COUNTER)]
    unknown = [name for name in given if name not in needed]
    if not missing and not unknown:
        return
    parts = [f"the file lacks {listed(missing)}"] if missing else []
    parts += [f"the model has no {listed(unknown)}"] if unknown else []
    raise DataError(
        f"{said}: {'; '.join(parts)}. Choose the model.name and model.args that these weights are of, or leave tensors "
        f"out: model.init-ignore = {_as_patterns([*missing, *unknown])!r}"
    )


def _check_shapes(said: str, needed: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Raise ``DataError`` unless all tensors have the shapes of the model's, and are floats where those are."""
    other = [name for name in needed if name in given and _kind(given[name]) != _kind(needed[name])]
    if other:
        shown = [
            f"{name} is {_shown(given[name])} in the file and {_shown(needed[name])} in the model" for name in other
        ]
        raise DataError(
            f"{said}: {listed(shown)}. A classifier of other classes is left out, and starts fresh, by "
            f"model.init-ignore = {_as_patterns(other)!r}"
        )


def _kind(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()


def _shown(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _as_patterns(names: Iterable[str]) -> str:
    """Return patterns of the modules that names belong to, the first three of them."""
    modules = dict.fromkeys(f"{name.rpartition('.')[0]}.*" if "." in name else name for name in names)
    return ", ".join([*modules][:3])
