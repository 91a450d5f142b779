"""Combinations of losses by name: normalized losses and sums, with the values published for CIFAR-10 as defaults."""

from client_app.losses.base import ElementwiseLoss, WeightedSum
from client_app.losses.distribution_losses import Normalized, NormalizedNegative, ReverseCrossEntropy
from client_app.losses.label_losses import (
    AsymmetricExponential,
    AsymmetricGeneralizedCrossEntropy,
    AsymmetricUnhinged,
    CrossEntropy,
    Focal,
    MeanAbsoluteError,
)
from client_app.losses.registry import LOSSES

MA = ("Ma et al., ICML 2020", "https://arxiv.org/abs/2006.13554")
YE = (
    "Ye et al., NeurIPS 2023",
    "https://papers.nips.cc/paper_files/paper/2023/hash/15f4cefb0e143c7ad9d40e879b0a9d0c-Abstract-Conference.html",
)
ZHOU = ("Zhou et al., ICML 2021", "https://arxiv.org/abs/2106.03110")


@LOSSES.register("sce", "Wang et al., ICCV 2019", "https://arxiv.org/abs/1908.06112")
def sce(alpha: float = 0.1, beta: float = 1.0) -> WeightedSum:
    """Symmetric cross-entropy, alpha CE + beta RCE.

    Parameters
    ----------
    alpha, beta
        Weights of CE and RCE.
    """
    return WeightedSum(((alpha, CrossEntropy()), (beta, ReverseCrossEntropy())))


@LOSSES.register("nce", *MA)
def nce() -> Normalized:
    """Normalized cross-entropy, log p_y / sum_k log p_k; active and symmetric."""
    return Normalized(CrossEntropy())


@LOSSES.register("nfl", *MA)
def nfl(gamma: float = 0.5, detach_modulator: bool = True) -> Normalized:
    """Normalized focal loss; gamma = 0 is NCE.

    Parameters
    ----------
    gamma
        Exponent of the focal loss; 0 is NCE.
    detach_modulator
        Whether the modulator is a constant in the gradient; see ``focal``.
    """
    return Normalized(Focal(gamma, detach_modulator))


@LOSSES.register("nmae", *MA)
def nmae() -> Normalized:
    """Normalized MAE, (1-p_y)/(K-1)."""
    return Normalized(MeanAbsoluteError())


@LOSSES.register("nrce", *MA)
def nrce() -> Normalized:
    """Normalized RCE, (1-p_y)/(K-1) up to the clipping of RCE; published codes multiply by (K-1)/4 instead."""
    return Normalized(ReverseCrossEntropy())


@LOSSES.register("nnce", *YE)
def nnce() -> NormalizedNegative:
    """Normalized negative cross-entropy: passive and symmetric."""
    return NormalizedNegative(CrossEntropy())


@LOSSES.register("nnfl", *YE)
def nnfl(gamma: float = 0.5, detach_modulator: bool = True) -> NormalizedNegative:
    """Normalized negative focal loss; gamma = 0 is NNCE.

    Parameters
    ----------
    gamma
        Exponent of the focal loss; 0 is NNCE.
    detach_modulator
        Whether the modulator is a constant in the gradient; see ``focal``.
    """
    return NormalizedNegative(Focal(gamma, detach_modulator))


@LOSSES.register("nce+mae", *MA)
def nce_mae(alpha: float = 1.0, beta: float = 1.0, scale: float = 1.0) -> WeightedSum:
    """Active-passive loss alpha NCE + beta MAE.

    Parameters
    ----------
    alpha, beta
        Weights of NCE and MAE.
    scale
        1, or 2 for the papers' MAE; see ``mae``.
    """
    return active_passive(nce(), alpha, MeanAbsoluteError(scale), beta)


@LOSSES.register("nce+rce", *MA)
def nce_rce(alpha: float = 1.0, beta: float = 1.0) -> WeightedSum:
    """Active-passive loss alpha NCE + beta RCE ("APL").

    Parameters
    ----------
    alpha, beta
        Weights of NCE and RCE.
    """
    return active_passive(nce(), alpha, ReverseCrossEntropy(), beta)


@LOSSES.register("nfl+mae", *MA)
def nfl_mae(
    alpha: float = 1.0, beta: float = 1.0, gamma: float = 0.5, scale: float = 1.0, detach_modulator: bool = True
) -> WeightedSum:
    """Active-passive loss alpha NFL + beta MAE.

    Parameters
    ----------
    alpha, beta
        Weights of NFL and MAE.
    gamma
        Exponent of the focal loss; 0 is cross-entropy.
    scale
        1, or 2 for the papers' MAE; see ``mae``.
    detach_modulator
        Whether the modulator is a constant in the gradient; see ``focal``.
    """
    return active_passive(nfl(gamma, detach_modulator), alpha, MeanAbsoluteError(scale), beta)


@LOSSES.register("nfl+rce", *MA)
def nfl_rce(alpha: float = 1.0, beta: float = 1.0, gamma: float = 0.5, detach_modulator: bool = True) -> WeightedSum:
    """Active-passive loss alpha NFL + beta RCE.

    Parameters
    ----------
    alpha, beta
        Weights of NFL and RCE.
    gamma
        Exponent of the focal loss; 0 is cross-entropy.
    detach_modulator
        Whether the modulator is a constant in the gradient; see ``focal``.
    """
    return active_passive(nfl(gamma, detach_modulator), alpha, ReverseCrossEntropy(), beta)


@LOSSES.register("nce+agce", *ZHOU)
def nce_agce(alpha: float = 1.0, beta: float = 4.0, a: float = 6.0, q: float = 1.5) -> WeightedSum:
    """Active loss plus asymmetric loss, alpha NCE + beta AGCE ("ALF").

    Parameters
    ----------
    alpha, beta
        Weights of NCE and AGCE.
    a, q
        Shift and exponent of AGCE; see ``agce``.
    """
    return active_passive(nce(), alpha, AsymmetricGeneralizedCrossEntropy(a, q), beta)


@LOSSES.register("nce+aul", *ZHOU)
def nce_aul(alpha: float = 1.0, beta: float = 4.0, a: float = 6.3, q: float = 1.5) -> WeightedSum:
    """Active loss plus asymmetric loss, alpha NCE + beta AUL.

    Parameters
    ----------
    alpha, beta
        Weights of NCE and AUL.
    a, q
        Shift and exponent of AUL; see ``aul``.
    """
    return active_passive(nce(), alpha, AsymmetricUnhinged(a, q), beta)


@LOSSES.register("nce+ael", *ZHOU)
def nce_ael(alpha: float = 1.0, beta: float = 4.0, a: float = 5.0) -> WeightedSum:
    """Active loss plus asymmetric loss, alpha NCE + beta AEL.

    Parameters
    ----------
    alpha, beta
        Weights of NCE and AEL.
    a
        Scale of AEL; see ``ael``.
    """
    return active_passive(nce(), alpha, AsymmetricExponential(a), beta)


def active_passive(active: ElementwiseLoss, alpha: float, passive: ElementwiseLoss, beta: float) -> WeightedSum:
    """Return alpha active + beta passive (Ma et al., ICML 2020), over one common log-softmax."""
    return WeightedSum(((alpha, active), (beta, passive)))
