"""Fresh models: the model of a run as it was built, for each message and each evaluation anew.

A model may keep more than its state dict holds: buffers that are not saved, counters, caches, tensors made in the first
forward pass. Trained or asked again, it would carry that from one client to the next.
"""

import copy
import gc
import weakref
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType, ModuleType

from torch import nn

from tasks.client_data import load_task, weights_folder
from tasks.frozen_parts import freeze, frozen_digest
from tasks.initial_weights import load_initial_weights
from tasks.seeds import seed_everything
from tasks.settings import ModelSettings, Settings, TaskSettings
from tasks.weights import frozen_names, load_arrays, model_arrays


def fresh_model(settings: Settings) -> nn.Module:
    """Return the model of a run as it was built, on the CPU and shared with nobody; frozen parts are as they stay.

    It follows from the seed alone, what its state dict does not hold too, and where parts are frozen from the file of
    ``model.init``; server and clients have the same one.

    Raises
    ------
    PluginError
        If the model is unknown, or its arguments do not fit.
    DataError
        If parts are to be frozen that are not there, or the file of ``model.init`` cannot be used for that.
    """
    return built_model(settings).cpu()


def built_model(settings: Settings) -> nn.Module:
    """Return what :func:`fresh_model` does, but on the device on which it was built; this may not be the CPU.

    Raises
    ------
    PluginError, DataError
        As :func:`fresh_model` does.
    """
    return _source(settings.task, settings.model, settings.seed).fresh()


def initial_model(settings: Settings, number: int = 1) -> nn.Module:
    """Return the model that training starts from: :func:`fresh_model` with the weights of ``model.init``, if any.

    Of a method that trains several networks each has random weights of its own, by its ``number``; what is frozen, or
    comes from a file, is the same in all of them.

    Raises
    ------
    PluginError, DataError
        As :func:`fresh_model` does, and if the file of ``model.init`` cannot be used.
    """
    model = fresh_model(settings) if number == 1 else _drawn_again(settings, number)
    if settings.model.init and not settings.model.freeze:  # else it has them already
        load_initial_weights(model, settings.model, weights_folder(settings.task))
    return model


def _drawn_again(settings: Settings, number: int) -> nn.Module:
    """Return a fresh model whose parameters and buffers, but for what is frozen, follow from another seed."""
    seed_everything(settings.seed, "init", number)
    drawn = load_task(settings.task).build_model(settings.model.name, settings.model.args)
    model = fresh_model(settings)
    frozen = frozen_names(model)
    load_arrays(model, {name: array for name, array in model_arrays(drawn).items() if name not in frozen})
    return model


@lru_cache(maxsize=2)
def model_digest(settings: Settings) -> str:
    """Return a digest of all that is frozen in the model of a run, which each site makes itself; empty if nothing is.

    Raises
    ------
    PluginError, DataError
        As :func:`fresh_model` does.
    """
    return frozen_digest(fresh_model(settings)) if settings.model.freeze else ""


@lru_cache(maxsize=2)
def _source(task: TaskSettings, model: ModelSettings, seed: int) -> "ModelSource":
    def build() -> nn.Module:
        seed_everything(seed, "init")
        built = load_task(task).build_model(model.name, model.args)
        if not model.freeze:
            return built
        if model.init:
            load_initial_weights(built, model, weights_folder(task))
        return freeze(built, model.freeze)

    return ModelSource(build)


class ModelSource:
    """Hands out models that nobody has used yet: copies of a first one, which takes a fraction of the time to build it.

    A model that has no complete copy is built anew each time; see :func:`has_complete_copies`.

    Parameters
    ----------
    build
        Builds the model, the same at each call.
    """

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._build = build
        first = build()
        self._first = first if has_complete_copies(first) else None

    def fresh(self) -> nn.Module:
        """Return a model as it was built."""
        return self._build() if self._first is None else copy.deepcopy(self._first)


def has_complete_copies(model: nn.Module) -> bool:
    """Tell whether ``copy.deepcopy`` gives a model that shares nothing with this one.

    Python copies no closure, so a hook or an activation that is a function inside of a function, or a lambda that says
    ``self``, would still act on the model that was copied; the same holds for a weak reference to a module. And some
    objects cannot be copied at all: locks, files, weights of the older ``torch.nn.utils.weight_norm``.
    """
    seen: set[int] = set()
    waiting: list[object] = [model]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | ModuleType):
            continue
        seen.add(id(item))
        if isinstance(item, FunctionType):
            if item.__closure__:
                return False
        elif isinstance(item, weakref.ref) and isinstance(item(), nn.Module):
            return False
        else:
            waiting.extend(gc.get_referents(item))
    try:
        copy.deepcopy(model)
    except (TypeError, RuntimeError):  # Python's and torch's way to say that an object has no copy
        return False
    return True
