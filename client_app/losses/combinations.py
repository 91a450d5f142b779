"""Named combinations of losses, with the values published for CIFAR-10 as defaults."""

import numpy.typing as npt
from torch import Tensor

from client_app.losses.base import ElementwiseLoss, WeightedSum, expect
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
    MeanAbsoluteError,
)
from client_app.losses.tloss import TLoss


def sce(alpha: float = 0.1, beta: float = 1.0) -> WeightedSum:
    """Symmetric cross-entropy, alpha CE + beta RCE."""
    return WeightedSum(((alpha, CrossEntropy()), (beta, ReverseCrossEntropy())))


def nce() -> Normalized:
    """Normalized cross-entropy, log p_y / sum_k log p_k; active and symmetric."""
    return Normalized(CrossEntropy())


def nfl(gamma: float = 0.5, detach_modulator: bool = True) -> Normalized:
    """Normalized focal loss; gamma = 0 is NCE."""
    return Normalized(Focal(gamma, detach_modulator))


def nmae() -> Normalized:
    """Normalized MAE, (1-p_y)/(K-1)."""
    return Normalized(MeanAbsoluteError())


def nrce() -> Normalized:
    """Normalized RCE, (1-p_y)/(K-1) up to the clipping of RCE; published codes multiply by (K-1)/4 instead."""
    return Normalized(ReverseCrossEntropy())


def nnce() -> NormalizedNegative:
    """Normalized negative cross-entropy: passive and symmetric."""
    return NormalizedNegative(CrossEntropy())


def nnfl(gamma: float = 0.5, detach_modulator: bool = True) -> NormalizedNegative:
    """Normalized negative focal loss; gamma = 0 is NNCE."""
    return NormalizedNegative(Focal(gamma, detach_modulator))


def nce_mae(alpha: float = 1.0, beta: float = 1.0, scale: float = 1.0) -> WeightedSum:
    """Active-passive loss alpha NCE + beta MAE; ``scale`` as for mae."""
    return active_passive(nce(), alpha, MeanAbsoluteError(scale), beta)


def nce_rce(alpha: float = 1.0, beta: float = 1.0) -> WeightedSum:
    """Active-passive loss alpha NCE + beta RCE ("APL")."""
    return active_passive(nce(), alpha, ReverseCrossEntropy(), beta)


def nfl_mae(
    alpha: float = 1.0, beta: float = 1.0, gamma: float = 0.5, scale: float = 1.0, detach_modulator: bool = True
) -> WeightedSum:
    """Active-passive loss alpha NFL + beta MAE; ``scale`` as for mae."""
    return active_passive(nfl(gamma, detach_modulator), alpha, MeanAbsoluteError(scale), beta)


def nfl_rce(alpha: float = 1.0, beta: float = 1.0, gamma: float = 0.5, detach_modulator: bool = True) -> WeightedSum:
    """Active-passive loss alpha NFL + beta RCE."""
    return active_passive(nfl(gamma, detach_modulator), alpha, ReverseCrossEntropy(), beta)


def nce_agce(alpha: float = 1.0, beta: float = 4.0, a: float = 6.0, q: float = 1.5) -> WeightedSum:
    """Active loss plus asymmetric loss, alpha NCE + beta AGCE ("ALF")."""
    return active_passive(nce(), alpha, AsymmetricGeneralizedCrossEntropy(a, q), beta)


def nce_aul(alpha: float = 1.0, beta: float = 4.0, a: float = 6.3, q: float = 1.5) -> WeightedSum:
    """Active loss plus asymmetric loss, alpha NCE + beta AUL."""
    return active_passive(nce(), alpha, AsymmetricUnhinged(a, q), beta)


def nce_ael(alpha: float = 1.0, beta: float = 4.0, a: float = 5.0) -> WeightedSum:
    """Active loss plus asymmetric loss, alpha NCE + beta AEL."""
    return active_passive(nce(), alpha, AsymmetricExponential(a), beta)


def active_passive(active: ElementwiseLoss, alpha: float, passive: ElementwiseLoss, beta: float) -> WeightedSum:
    """Return alpha active + beta passive (Ma et al., ICML 2020), over one common log-softmax."""
    return WeightedSum(((alpha, active), (beta, passive)))


def la_ce(
    num_classes: int, class_counts: npt.ArrayLike | Tensor | None = None, tau: float = 1.0
) -> LogitAdjustedCrossEntropy:
    """Logit-adjusted cross-entropy: CE(logits + tau log(class share at the client), label).

    Raises
    ------
    ValueError
        If ``class_counts`` is missing or does not have ``num_classes`` entries.
    """
    if class_counts is None:
        raise ValueError("needs class_counts, the number of the client's examples per class")
    loss = LogitAdjustedCrossEntropy.from_counts(class_counts, tau)
    expect(len(loss.margin) == num_classes, f"class_counts has {len(loss.margin)} entries for {num_classes} classes")
    return loss


def t_loss(num_classes: int, log_nu: float = 1.0, form: str = "official") -> TLoss:
    """T-Loss, the negative log-likelihood of a Student-t error image; binary masks only.

    Raises
    ------
    ValueError
        If there are not 2 classes.
    """
    expect(num_classes == 2, f"is for 2 classes (background, foreground), not {num_classes}")
    return TLoss(log_nu, form)
