"""Registry of losses: where they are registered, and how to build one from its name and arguments."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt
from torch import Tensor, nn

from client_app.losses.base import Loss
from client_app.losses.objective import Objective
from client_app.losses.plain import REDUCTION, factory_of, of_module
from client_app.losses.presets import PRESETS
from tasks.plugins import PluginError, Registry, did_you_mean, parse_args

FORMS = "a subclass of client_app.losses.ElementwiseLoss or Loss, a torch.nn.Module, or a function of (logits, labels)"
RUN_SETS = ("num_classes", "class_counts", "reduction")


class LossRegistry(Registry[Objective]):
    """Losses and objectives; what it builds is always an objective.

    What an import path names is a function of (logits, labels), a class of such modules, a class of ours, or a function
    that returns a module, a loss or an objective.
    """

    def adapt(self, factory: Callable[..., Objective], given: Mapping[str, Any]) -> Callable[..., Objective]:
        """Return the factory, and for a function of (logits, labels) one that makes it a loss."""
        return factory_of(factory, {*RUN_SETS, *given})

    def convert(self, built: Any, name: str) -> Any:
        """Return a loss or a module as an objective without regularizers, anything else unchanged."""
        loss = of_module(built) if isinstance(built, nn.Module) else built
        return Objective(loss) if isinstance(loss, Loss) else loss

    def _check_factory(self, found: object) -> None:
        if inspect.isclass(found) and not issubclass(found, self._bases):
            raise PluginError(f"expected {FORMS}, got the class {found.__name__}")
        super()._check_factory(found)

    def _wanted(self) -> str:
        return FORMS


LOSSES = LossRegistry("loss", Objective, Loss, nn.Module, run_sets=RUN_SETS)


def build(
    name: str,
    num_classes: int,
    args: str | Mapping[str, Any] = "",
    preset: str = "",
    class_counts: npt.ArrayLike | Tensor | None = None,
) -> Objective:
    """Build the objective of a loss.

    Parameters
    ----------
    name
        A name of ``LOSSES``, or ``package.module:Name`` of a function of (logits, labels), of a class of modules,
        losses or objectives, or of a function that returns one. It receives ``num_classes``, ``class_counts`` and
        ``reduction`` ("none") if it has arguments of these names.
    num_classes
        Number of classes K, at least 2.
    args
        Parameters of the loss, as inline TOML (``"alpha = 5, delta = 5e-5"``) or as a mapping. What is left out
        comes from the preset, else it is the value published for CIFAR-10.
    preset
        Name of a data set in ``PRESETS``, or empty.
    class_counts
        Number of the client's examples per (given) label, (K,), for the losses that adjust for it.

    Raises
    ------
    PluginError
        If the name, a parameter or the preset does not exist, or a value does not fit.

    >>> build("gce", num_classes=10, args="q = 0.5").loss
    GeneralizedCrossEntropy(q=0.5)
    """
    if num_classes < 2:
        raise PluginError(f"loss {name!r}: expected at least 2 classes, got {num_classes}")
    given = parse_args(args) if isinstance(args, str) else args
    merged = {**(preset_args(name, preset) if preset else {}), **given}
    return LOSSES.build(name, merged, num_classes=num_classes, class_counts=class_counts, reduction=REDUCTION)


def preset_args(name: str, preset: str) -> Mapping[str, Any]:
    """Return the published parameters of loss ``name`` on the data set ``preset``.

    Raises
    ------
    PluginError
        If the preset does not exist or has no values for this loss.
    """
    if preset not in PRESETS:
        raise PluginError(f"unknown loss preset {preset!r}{did_you_mean(preset, PRESETS)}")
    if name not in PRESETS[preset]:
        known = ", ".join(sorted(PRESETS[preset]))
        raise PluginError(f"preset {preset!r} has no values for loss {name!r}: set them by args; it has {known}")
    return PRESETS[preset][name]
