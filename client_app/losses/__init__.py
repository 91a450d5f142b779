"""Losses for learning with noisy labels: per-element losses, penalties, batch terms and their objectives."""

from client_app.losses.base import IGNORE_INDEX, ElementwiseLoss, LabelLoss, Loss, WeightedSum
from client_app.losses.batch_terms import BatchTerm, EntropyOfMean, InputTerm, Jacobian
from client_app.losses.catalogue import LOSSES, build
from client_app.losses.distribution_losses import (
    LogitAdjustedCrossEntropy,
    Normalized,
    NormalizedNegative,
    ReverseCrossEntropy,
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
from client_app.losses.objective import Objective, weighted_mean
from client_app.losses.penalties import L1, L2, Anchor, L1ToGlobal, L2ToGlobal, Penalty
from client_app.losses.presets import PRESETS
from client_app.losses.tloss import TLoss

__all__ = [
    "IGNORE_INDEX",
    "L1",
    "L2",
    "LOSSES",
    "PRESETS",
    "Anchor",
    "AsymmetricExponential",
    "AsymmetricGeneralizedCrossEntropy",
    "AsymmetricUnhinged",
    "BatchTerm",
    "CrossEntropy",
    "ElementwiseLoss",
    "EntropyOfMean",
    "Focal",
    "GeneralizedCrossEntropy",
    "InputTerm",
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
    "Penalty",
    "ReverseCrossEntropy",
    "TLoss",
    "TaylorCrossEntropy",
    "WeightedSum",
    "build",
    "weighted_mean",
]
