"""Losses for learning with noisy labels: losses per element, regularizers, and the objectives made of both.

What a loss plug-in may use is exported here. A built-in loss is registered where it is defined, by
``@LOSSES.register(name, paper)``, and its module is imported below.
"""

from client_app.losses.active_negative import regularized  # noqa: F401  its losses register themselves
from client_app.losses.base import IGNORE_INDEX, ElementwiseLoss, LabelLoss, Loss, WeightedSum
from client_app.losses.combinations import active_passive
from client_app.losses.distribution_losses import (
    LogitAdjustedCrossEntropy,
    Normalized,
    NormalizedNegative,
    ReverseCrossEntropy,
    TLoss,
)
from client_app.losses.label_losses import (
    AsymmetricExponential,
    AsymmetricGeneralizedCrossEntropy,
    AsymmetricUnhinged,
    CrossEntropy,
    Focal,
    GeneralizedCrossEntropy,
    MeanAbsoluteError,
    PartiallyHuberisedCrossEntropy,
    TaylorCrossEntropy,
)
from client_app.losses.objective import Objective, Penalties, weighted_mean
from client_app.losses.presets import PRESETS
from client_app.losses.registry import LOSSES, build
from client_app.losses.regularizers import (
    L1,
    L2,
    EntropyOfMean,
    GlobalParameters,
    Jacobian,
    L1ToGlobal,
    L2ToGlobal,
    Regularizer,
    RegularizerInput,
)

__all__ = [
    "IGNORE_INDEX",
    "L1",
    "L2",
    "LOSSES",
    "PRESETS",
    "AsymmetricExponential",
    "AsymmetricGeneralizedCrossEntropy",
    "AsymmetricUnhinged",
    "CrossEntropy",
    "ElementwiseLoss",
    "EntropyOfMean",
    "Focal",
    "GeneralizedCrossEntropy",
    "GlobalParameters",
    "Jacobian",
    "L1ToGlobal",
    "L2ToGlobal",
    "LabelLoss",
    "LogitAdjustedCrossEntropy",
    "Loss",
    "MeanAbsoluteError",
    "Normalized",
    "NormalizedNegative",
    "Objective",
    "PartiallyHuberisedCrossEntropy",
    "Penalties",
    "Regularizer",
    "RegularizerInput",
    "ReverseCrossEntropy",
    "TLoss",
    "TaylorCrossEntropy",
    "WeightedSum",
    "active_passive",
    "build",
    "weighted_mean",
]
