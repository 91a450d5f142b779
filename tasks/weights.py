"""Weights: the tensors of a model's state dict as named arrays, each of them once.

A tensor with several names (tied weights: ``self.head.weight = self.embed.weight``) goes by its first one. It travels,
is aggregated, clipped and kept once, and is loaded under all of its names.
"""

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from tasks.protocol import Arrays

FROZEN = "_winnow_frozen"
"""Attribute of a model that holds the names of its frozen tensors."""


def tied_names(model: nn.Module) -> dict[str, str]:
    """Return the first name of each tensor that has several, by each of its other names.

    Names are tied if they stand for the same elements in memory, whether or not they are one Python object.
    """
    first: dict[tuple[object, ...], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.numel():  # empty tensors all lie at address 0
            place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if first.setdefault(place, name) != name:
                tied[name] = first[place]
    return tied


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model's state dict, each once, under its first name; they share the model's memory."""
    tied = tied_names(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def model_arrays(model: nn.Module, names: Iterable[str] | None = None) -> Arrays:
    """Return a model's weights as arrays, by default all of :func:`weights`; of a model on a CPU they are views.

    On a GPU, buffers that were tied may be apart, so name those of the model that came.
    """
    state = weights(model) if names is None else model.state_dict()
    return {name: state[name].detach().cpu().numpy() for name in (state if names is None else names)}


def frozen_names(model: nn.Module) -> frozenset[str]:
    """Return which of :func:`weights` are frozen, so that they do not travel; see :mod:`tasks.frozen_parts`."""
    names: frozenset[str] = model.__dict__.get(FROZEN, frozenset())
    return names


def load_arrays(model: nn.Module, arrays: Arrays) -> None:
    """Copy named arrays, as :func:`model_arrays` returns them, into a model that is on the CPU.

    Frozen ones may be missing, because they do not travel: they stay as they are.

    Raises
    ------
    RuntimeError
        If names or shapes are not the model's.
    """
    frozen = frozen_names(model)
    kept = model.state_dict() if frozen else {}
    tensors = {name: kept[name] for name in frozen}
    with warnings.catch_warnings():  # that a view of what came must not be written to, and it is not
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensors |= {name: torch.from_numpy(np.require(array, requirements="A")) for name, array in arrays.items()}
    others = {name: tensors[first] for name, first in tied_names(model).items() if first in tensors}
    model.load_state_dict({**tensors, **others})


def buffer_names(model: nn.Module) -> tuple[str, ...]:
    """Return which of :func:`weights` are no parameter under any of their names, such as BatchNorm statistics."""
    tied = tied_names(model)
    parameters = {tied.get(name, name) for name, _ in model.named_parameters(remove_duplicate=False)}
    return tuple(name for name in weights(model) if name not in parameters)
