"""Combinations of losses by name, with the values published for CIFAR-10 as defaults.

First sums of losses, then objectives: Active Negative Loss (ANL), ANL* with the entropy term, and FSANL.
"""

from dataclasses import replace

from client_app.losses.base import ElementwiseLoss, WeightedSum, expect
from client_app.losses.distribution_losses import Normalized, NormalizedNegative, ReverseCrossEntropy
from client_app.losses.label_losses import (
    AsymmetricExponential,
    AsymmetricGeneralizedCrossEntropy,
    AsymmetricUnhinged,
    CrossEntropy,
    Focal,
    MeanAbsoluteError,
)
from client_app.losses.objective import Objective, weighted
from client_app.losses.registry import LOSSES
from client_app.losses.regularizers import L1, L2, EntropyOfMean, Jacobian, L1ToGlobal, Regularizer

MA = ("Ma et al., ICML 2020", "https://arxiv.org/abs/2006.13554")
YE = (
    "Ye et al., NeurIPS 2023",
    "https://papers.nips.cc/paper_files/paper/2023/hash/15f4cefb0e143c7ad9d40e879b0a9d0c-Abstract-Conference.html",
)
YE_EXTENDED = ("Ye et al., arXiv 2412.02373, 2024", "https://arxiv.org/abs/2412.02373")
ZHOU = ("Zhou et al., ICML 2021", "https://arxiv.org/abs/2106.03110")

REGULARIZERS: dict[str, tuple[Regularizer, ...]] = {"l1": (L1(),), "l2": (L2(),), "none": (), "jacobian": (Jacobian(),)}
L1_MODES: dict[str, tuple[Regularizer, ...]] = {"prox": (L1ToGlobal(),), "weight": (L1(),), "none": ()}


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


@LOSSES.register("anl-ce", *YE)
def anl_ce(alpha: float = 5.0, beta: float = 5.0, delta: float = 5e-5, regularizer: str = "l1") -> Objective:
    """Active negative loss, alpha NCE + beta NNCE + delta x regularizer.

    Train with weight decay 0 unless the regularizer is "none".

    Parameters
    ----------
    alpha, beta
        Weights of NCE and NNCE.
    delta
        Weight of the regularizer, which is on all weights of the model.
    regularizer
        "l1" (published), "l2" (half the squared norm; Clothing1M), "jacobian" or "none".
    """
    return regularized(active_passive(nce(), alpha, nnce(), beta), delta, regularizer)


@LOSSES.register("anl-fl", *YE)
def anl_fl(
    alpha: float = 5.0,
    beta: float = 5.0,
    delta: float = 5e-5,
    gamma: float = 0.5,
    detach_modulator: bool = True,
    regularizer: str = "l1",
) -> Objective:
    """Active negative loss, alpha NFL + beta NNFL + delta x regularizer.

    Parameters
    ----------
    alpha, beta
        Weights of NFL and NNFL.
    delta
        Weight of the regularizer, which is on all weights of the model.
    gamma
        Exponent of the focal loss; 0 is cross-entropy.
    detach_modulator
        Whether the modulator is a constant in the gradient; see ``focal``.
    regularizer
        "l1" (published), "l2" (half the squared norm; Clothing1M), "jacobian" or "none".
    """
    active, negative = nfl(gamma, detach_modulator), nnfl(gamma, detach_modulator)
    return regularized(active_passive(active, alpha, negative, beta), delta, regularizer)


@LOSSES.register("anl-ce*", *YE_EXTENDED)
def anl_ce_star(
    alpha: float = 5.0,
    beta: float = 5.0,
    delta: float = 5e-5,
    entropy_weight: float = 2.0,
    regularizer: str = "l1",
) -> Objective:
    """ANL-CE plus entropy_weight (log K - entropy of the batch's mean prediction), for non-symmetric noise.

    Parameters
    ----------
    alpha, beta
        Weights of NCE and NNCE.
    delta
        Weight of the regularizer.
    entropy_weight
        Weight of the entropy term; 0 is ANL-CE.
    regularizer
        "l1" (published), "l2" (half the squared norm; Clothing1M), "jacobian" or "none".
    """
    return balanced(anl_ce(alpha, beta, delta, regularizer), entropy_weight)


@LOSSES.register("anl-fl*", *YE_EXTENDED)
def anl_fl_star(
    alpha: float = 5.0,
    beta: float = 5.0,
    delta: float = 5e-5,
    entropy_weight: float = 2.0,
    gamma: float = 0.5,
    detach_modulator: bool = True,
    regularizer: str = "l1",
) -> Objective:
    """ANL-FL plus entropy_weight (log K - entropy of the batch's mean prediction), for non-symmetric noise.

    Parameters
    ----------
    alpha, beta
        Weights of NFL and NNFL.
    delta
        Weight of the regularizer.
    entropy_weight
        Weight of the entropy term; 0 is ANL-FL.
    gamma
        Exponent of the focal loss; 0 is cross-entropy.
    detach_modulator
        Whether the modulator is a constant in the gradient; see ``focal``.
    regularizer
        "l1" (published), "l2" (half the squared norm; Clothing1M), "jacobian" or "none".
    """
    return balanced(anl_fl(alpha, beta, delta, gamma, detach_modulator, regularizer), entropy_weight)


@LOSSES.register("fsanl", "Ejigu, Raha, Gain and Hong; formula reconstructed")
def fsanl(
    nce_weight: float = 5.0,
    sce_weight: float = 1.0,
    nnce_weight: float = 5.0,
    alpha: float = 0.1,
    beta: float = 1.0,
    delta: float = 5e-5,
    l1_mode: str = "prox",
) -> Objective:
    """FSANL, reconstructed: NCE + SCE + NNCE + L1; the paper's formula is not public.

    Only the abstract of Ejigu, Raha, Gain and Hong's paper can be read: normalized and symmetric cross-entropy, a
    term of active negative suppression, and a global L1 term against client drift. Everything beyond that is our
    reading: nce_weight NCE + sce_weight (alpha CE + beta RCE) + nnce_weight NNCE + delta L1, with the weights of
    ANL-CE and SCE.

    Parameters
    ----------
    nce_weight, sce_weight, nnce_weight
        Weights of NCE, SCE and NNCE.
    alpha, beta
        Weights of CE and RCE within SCE; alpha = 0 is the purely symmetric reading.
    delta
        Weight of the L1 term.
    l1_mode
        "prox", the L1 distance to the received global model; "weight", the L1 norm of the weights (with ANL's delta);
        "none".
    """
    expect(l1_mode in L1_MODES, f"l1_mode must be one of {', '.join(L1_MODES)}, got {l1_mode!r}")
    parts: tuple[tuple[float, ElementwiseLoss], ...] = (
        (nce_weight, nce()),
        (sce_weight * alpha, CrossEntropy()),
        (sce_weight * beta, ReverseCrossEntropy()),
        (nnce_weight, nnce()),
    )
    return Objective(WeightedSum(parts), weighted(delta, L1_MODES[l1_mode]))


def regularized(loss: ElementwiseLoss, delta: float, regularizer: str) -> Objective:
    """Return the objective ``loss`` + ``delta`` x the named regularizer.

    Raises
    ------
    ValueError
        If the name is unknown or ``delta`` is negative.
    """
    expect(regularizer in REGULARIZERS, f"regularizer must be one of {', '.join(REGULARIZERS)}, got {regularizer!r}")
    return Objective(loss, weighted(delta, REGULARIZERS[regularizer]))


def balanced(objective: Objective, entropy_weight: float) -> Objective:
    """Return ``objective`` with ANL*'s entropy term.

    Raises
    ------
    ValueError
        If ``entropy_weight`` is negative.
    """
    # The entropy first: the order of a sum decides its last bits.
    return replace(objective, regularizers=weighted(entropy_weight, (EntropyOfMean(),)) + objective.regularizers)
