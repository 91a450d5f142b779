"""Registry of losses: where they are registered, and how to build one from its name and arguments."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from torch import Tensor

from client_app.losses.base import Loss
from client_app.losses.objective import Objective
from client_app.losses.presets import PRESETS
from tasks.plugins import PluginError, Registry, did_you_mean, parse_args


class LossRegistry(Registry[Objective]):
    """Losses and objectives; what it builds is always an objective."""

    def convert(self, built: Any, name: str) -> Any:
        """Return a loss as an objective without regularizers, anything else unchanged."""
        return Objective(built) if isinstance(built, Loss) else built


LOSSES = LossRegistry("loss", Objective, Loss)


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
        A name of ``LOSSES``, or ``package.module:Name`` of a ``Loss`` or ``Objective`` class or of a function that
        returns one; it receives ``num_classes`` and ``class_counts`` if it has arguments of these names.
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
    return LOSSES.build(name, merged, num_classes=num_classes, class_counts=class_counts)


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
