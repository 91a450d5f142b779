"""Active negative losses by name: ANL, ANL* with the entropy term, and FSANL, objectives with a regularizer.

The values published for CIFAR-10 are the defaults.
"""

from dataclasses import replace

from client_app.losses.base import ElementwiseLoss, WeightedSum, expect
from client_app.losses.combinations import YE, active_passive, nce, nfl, nnce, nnfl
from client_app.losses.distribution_losses import ReverseCrossEntropy
from client_app.losses.label_losses import CrossEntropy
from client_app.losses.objective import Objective, weighted
from client_app.losses.registry import LOSSES
from client_app.losses.regularizers import L1, L2, EntropyOfMean, Jacobian, L1ToGlobal, Regularizer

YE_EXTENDED = ("Ye et al., arXiv 2412.02373, 2024", "https://arxiv.org/abs/2412.02373")

REGULARIZERS: dict[str, tuple[Regularizer, ...]] = {"l1": (L1(),), "l2": (L2(),), "none": (), "jacobian": (Jacobian(),)}
L1_MODES: dict[str, tuple[Regularizer, ...]] = {"prox": (L1ToGlobal(),), "weight": (L1(),), "none": ()}


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

    loss = WeightedSum(
        (
            (nce_weight, nce()),
            (sce_weight * alpha, CrossEntropy()),
            (sce_weight * beta, ReverseCrossEntropy()),
            (nnce_weight, nnce()),
        )
    )
    return Objective(loss, weighted(delta, L1_MODES[l1_mode]))


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
