"""Frozen parameters of a model (``model.freeze``): neither trained nor sent, the same at every site.

A module all of whose parameters are frozen stays in evaluation mode, with everything in it: its BatchNorm statistics
are frozen too, and its dropout is off. What is frozen comes from the seed or from the file of ``model.init``, so each
site makes it itself; a digest of it says whether it is the same everywhere.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from types import MethodType

from torch import nn

from tasks.base import DataError
from tasks.files import content_digest
from tasks.issues import listed
from tasks.weights import FROZEN, frozen_names, model_arrays, tied_names, weights


def matched(names: Iterable[str], patterns: str, key: str, what: str) -> frozenset[str]:
    """Return the names that a comma list of patterns such as ``conv1.*, layer?.*`` matches.

    Parameters
    ----------
    key
        The setting that holds the patterns, for messages.
    what
        What the names are those of, for messages.

    Raises
    ------
    DataError
        If a pattern matches none of them.
    """
    known = list(names)
    found: set[str] = set()
    for pattern in filter(None, map(str.strip, patterns.split(","))):
        here = {name for name in known if fnmatchcase(name, pattern)}
        if not here:
            raise DataError(f"{key}: {pattern!r} matches none of {what}, which are {listed(known)}")
        found |= here
    return frozenset(found)


def freeze(model: nn.Module, patterns: str) -> nn.Module:
    """Freeze the parameters of a model whose names match, in place, and return it; copies of it are frozen too.

    ``train()`` leaves frozen modules in evaluation mode, whoever calls it. A tensor with several names is frozen under
    all of them.

    Raises
    ------
    DataError
        If a pattern matches no parameter, or nothing is left to train.
    """
    tied, named = tied_names(model), dict(model.named_parameters(remove_duplicate=False))
    chosen = {tied.get(name, name) for name in matched(named, patterns, "model.freeze", "the model's parameters")}
    for name, parameter in named.items():
        if tied.get(name, name) in chosen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise DataError(f"model.freeze = {patterns!r}: all parameters are frozen, and nothing is left to train")
    modules = _frozen_modules(model, {id(named[name]) for name in named if tied.get(name, name) in chosen})
    for name, module in modules.items():
        module.__dict__["train"] = MethodType(_stay_in_evaluation, module)
        module.eval()
        chosen |= {tied.get(full, full) for full in (f"{name}.{own}" for own, _ in module.named_buffers(recurse=False))}
    model.__dict__[FROZEN] = frozenset(name for name in weights(model) if name in chosen)
    return model


def frozen_digest(model: nn.Module) -> str:
    """Return a SHA-256 of the names, types, shapes and values of all that is frozen; empty if nothing is."""
    names = frozen_names(model)
    return content_digest("frozen", model_arrays(model, sorted(names))) if names else ""


def _frozen_modules(model: nn.Module, frozen: set[int]) -> dict[str, nn.Module]:
    """Return the modules that have parameters, all of them ``frozen`` (by ``id``), with all modules within them."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        own = list(module.parameters())
        if own and all(id(parameter) in frozen for parameter in own):
            found |= dict(module.named_modules(prefix=name, remove_duplicate=False))
    return found


def _stay_in_evaluation(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stand in for the ``train`` of a frozen module: whatever is asked for, it and its parts stay as they are used."""
    return nn.Module.train(module, False)
