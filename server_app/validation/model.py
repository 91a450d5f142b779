"""Model, checked before any client starts: whether its weights can travel, and whether one example can be a batch.

This holds for every model, built in or the user's own.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from client_app.batch_splits import has_batch_norm, single_example, smallest_batch
from tasks.base import Task
from tasks.extra_arrays import is_beside
from tasks.features import FeatureError
from tasks.issues import ERROR, WARNING, Issue, listed
from tasks.protocol import DTYPES, pack, unpack
from tasks.settings import TrainSettings
from tasks.weights import load_arrays, model_arrays, weights

Problem = tuple[str, str]  # what is the matter, and what to do

REMEDIES = {
    "bfloat16": "build the model in float32; train.precision = 'bfloat16' trains it in bfloat16",
    "complex": "keep real and imaginary parts (torch.view_as_real), and join them in forward",
}


def weights_issues(model: nn.Module) -> list[Issue]:
    """Return which tensors of a model's state dict cannot travel, or do not come back as they were.

    The model must be one that nobody needs any more: all of its weights are loaded again.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    found: defaultdict[Problem, list[str]] = defaultdict(list)
    for name, value in model.state_dict().items():
        if problem := _problem(name, value, name in parameters):
            found[problem].append(name)
    return _as_issues(found or _overlaps(model) or _changed(model))


def _as_issues(found: Mapping[Problem, list[str]]) -> list[Issue]:
    return [Issue(ERROR, "model", f"model: {listed(names)}: {text}", todo) for (text, todo), names in found.items()]


def _problem(name: str, value: object, is_parameter: bool) -> Problem | None:
    """Return why one value of a state dict cannot travel, if so."""
    if is_beside(name):
        return "a name that begins as those of further networks and named arrays of a method do", "rename the module"
    if not isinstance(value, Tensor):
        todo = "keep it in buffers, or let get_extra_state return a tensor"
        return f"extra state of type {type(value).__name__}, and only tensors travel", todo
    return _no_values(value) or _no_array(value, is_parameter)


def _no_values(value: Tensor) -> Problem | None:
    if is_lazy(value):
        return "no shape before the first batch", "give the layer its sizes, or run a batch where the model is built"
    if value.is_meta:
        return "no values, it is on the device meta", "build the model on the CPU"
    if value.layout != torch.strided:
        return f"{value.layout}, and only dense tensors travel", "keep it dense (to_dense)"
    return None


def _no_array(value: Tensor, is_parameter: bool) -> Problem | None:
    """Return why a dense tensor cannot be an array that is averaged and loaded again, if so."""
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        todo = REMEDIES["complex"] if value.is_complex() else REMEDIES.get(dtype, f"use one of {', '.join(DTYPES)}")
        return f"{dtype}, which does not travel", todo
    if is_parameter and not value.is_floating_point():
        return f"a parameter of {dtype}, which cannot be trained or averaged", "make it a buffer (register_buffer)"
    if any(stride == 0 and size > 1 for stride, size in zip(value.stride(), value.shape, strict=True)):
        return "several elements in one place of memory (expand), so it cannot be loaded", "copy it (clone)"
    return None


def _overlaps(model: nn.Module) -> dict[Problem, list[str]]:
    """Return which tensors are a part, or another view, of another one; those tied as a whole are one tensor."""
    by_storage: defaultdict[int, list[str]] = defaultdict(list)
    tensors = weights(model)
    for name, tensor in tensors.items():
        by_storage[tensor.untyped_storage().data_ptr()].append(name)
    arrays = model_arrays(model)
    pairs = (pair for names in by_storage.values() for pair in combinations(names, 2))
    todo = "tie whole tensors (self.b = self.a), or copy one of them (clone)"
    return {
        (f"a view of the memory of {first}, so that each would overwrite the other", todo): [second]
        for first, second in pairs
        if np.shares_memory(arrays[first], arrays[second])
    }


def _changed(model: nn.Module) -> dict[Problem, list[str]]:
    """Return which arrays differ after they were packed, unpacked and loaded."""
    before = {name: array.tobytes() for name, array in model_arrays(model).items()}
    load_arrays(model, unpack(*pack(model_arrays(model))))
    after = model_arrays(model)
    names = [name for name, value in before.items() if name not in after or after[name].tobytes() != value]
    todo = "let load_state_dict (and its hooks) take exactly what state_dict returns"
    return {("another value after it was loaded than before", todo): names} if names else {}


def one_example_issues(task: Task, model: nn.Module, train: TrainSettings, counts: Sequence[int]) -> list[Issue]:
    """Return that a batch of one example is too small for the model, if clients with ``counts`` examples have one.

    The model is left in training mode.
    """
    batch_norm = has_batch_norm(model)
    if min((smallest_batch(count, train, batch_norm) for count in counts if count), default=0) != 1:
        return []
    inputs = task.prepare(task.first_examples(1).features)
    try:
        with torch.no_grad(), single_example(model.train()) as switched:
            model(inputs)
    except ValueError as error:  # what normalisation layers raise
        text = f"model: it cannot be trained on a batch of one example, which clients here have: {error}"
        return [Issue(ERROR, "model", text, _larger_batches(train, counts))]
    if not switched or train.batch_size > 1:
        return []
    text = "train.batch-size = 1: BatchNorm layers with one value per channel never learn their running statistics"
    return [Issue(WARNING, "train.batch-size", text)]


def feature_issues(task: Task, model: nn.Module, wanted_by: str) -> list[Issue]:
    """Return that a model has no features that can be trained, which ``wanted_by`` (a setting or method) needs.

    No data is read: the model is given zeros. It is left in evaluation mode.
    """
    kind = torch.float32 if task.has_smooth_inputs else torch.int64
    try:
        features = task.features(model.eval(), torch.zeros(2, *task.input_shape, dtype=kind))
    except FeatureError as error:
        return [Issue(ERROR, "model", f"model: {wanted_by} looks at the features: {error}")]
    if features.requires_grad:
        return []
    text = f"{wanted_by} has no effect: what the last layer of this model is given is not learned"
    return [Issue(ERROR, "model", text, "choose a model with a hidden layer that is trained")]


def _larger_batches(train: TrainSettings, counts: Sequence[int]) -> str:
    if train.batch_size == 1:
        return "set train.batch-size to at least 2"
    if 1 in counts:
        return "choose a partition that gives every client at least 2 examples"
    return "set train.drop-last = true, or another train.batch-size"
