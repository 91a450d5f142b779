"""All losses by name, and how to build one from its name and arguments."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt
from torch import Tensor

from client_app.losses import anl, combinations, label_losses
from client_app.losses.base import Loss
from client_app.losses.distribution_losses import ReverseCrossEntropy
from client_app.losses.objective import Objective
from client_app.losses.presets import PRESETS
from tasks.plugin import PluginError, Registry, did_you_mean, parse_args

LOSSES = Registry("loss", Objective, Loss)

GHOSH = "Ghosh, Kumar and Sastry, AAAI 2017"
MA = "Ma et al., ICML 2020"
WANG = "Wang et al., ICCV 2019"
YE = "Ye et al., NeurIPS 2023"
YE_EXTENDED = "Ye et al., arXiv 2412.02373, 2024"
ZHOU = "Zhou et al., ICML 2021"

CATALOGUE: Mapping[str, tuple[Callable[..., Loss | Objective], str]] = {
    "ce": (label_losses.CrossEntropy, ""),
    "focal": (label_losses.Focal, "Lin et al., ICCV 2017"),
    "mae": (label_losses.MeanAbsoluteError, GHOSH),
    "nmae": (combinations.nmae, MA),
    "gce": (label_losses.GeneralizedCrossEntropy, "Zhang and Sabuncu, NeurIPS 2018"),
    "sce": (combinations.sce, WANG),
    "rce": (ReverseCrossEntropy, WANG),
    "nrce": (combinations.nrce, MA),
    "phce": (label_losses.PartiallyHuberisedCrossEntropy, "Menon et al., ICLR 2020"),
    "tce": (label_losses.TaylorCrossEntropy, "Feng et al., IJCAI 2020"),
    "nce": (combinations.nce, MA),
    "nfl": (combinations.nfl, MA),
    "nce+mae": (combinations.nce_mae, MA),
    "nce+rce": (combinations.nce_rce, MA),
    "nfl+mae": (combinations.nfl_mae, MA),
    "nfl+rce": (combinations.nfl_rce, MA),
    "agce": (label_losses.AsymmetricGeneralizedCrossEntropy, ZHOU),
    "aul": (label_losses.AsymmetricUnhinged, ZHOU),
    "ael": (label_losses.AsymmetricExponential, ZHOU),
    "nce+agce": (combinations.nce_agce, ZHOU),
    "nce+aul": (combinations.nce_aul, ZHOU),
    "nce+ael": (combinations.nce_ael, ZHOU),
    "nnce": (combinations.nnce, YE),
    "nnfl": (combinations.nnfl, YE),
    "anl-ce": (anl.anl_ce, YE),
    "anl-fl": (anl.anl_fl, YE),
    "anl-ce*": (anl.anl_ce_star, YE_EXTENDED),
    "anl-fl*": (anl.anl_fl_star, YE_EXTENDED),
    "la-ce": (combinations.la_ce, "Menon et al., ICLR 2021"),
    "t-loss": (combinations.t_loss, "Gonzalez-Jimenez et al., MICCAI 2023"),
    "fsanl": (anl.fsanl, "Ejigu, Raha, Gain and Hong; formula reconstructed"),
}


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
    return as_objective(LOSSES.build(name, merged, num_classes=num_classes, class_counts=class_counts), name)


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


def as_objective(built: object, name: str) -> Objective:
    """Return a loss as an objective without further terms, an objective unchanged.

    Raises
    ------
    PluginError
        If ``built`` is neither.
    """
    if isinstance(built, Objective):
        return built
    if isinstance(built, Loss):
        return Objective(built)
    raise PluginError(f"loss {name!r}: expected a Loss or an Objective, got {type(built).__name__}")


def _register(name: str, factory: Callable[..., Loss | Objective], paper: str) -> None:
    @functools.wraps(factory)
    def objective(**arguments: Any) -> Objective:
        return as_objective(factory(**arguments), name)

    LOSSES.register(name, paper)(objective)


for _name, (_factory, _paper) in CATALOGUE.items():
    _register(_name, _factory, _paper)
