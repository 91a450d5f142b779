"""Objectives with a negative loss: Active Negative Loss (ANL), its variant ANL* with the entropy term, and FSANL."""

from dataclasses import replace

from client_app.losses.base import ElementwiseLoss, WeightedSum, expect
from client_app.losses.batch_terms import EntropyOfMean, Jacobian
from client_app.losses.combinations import active_passive, nce, nfl, nnce, nnfl
from client_app.losses.distribution_losses import ReverseCrossEntropy
from client_app.losses.label_losses import CrossEntropy
from client_app.losses.objective import Objective, weighted
from client_app.losses.penalties import L1, L2, L1ToGlobal, Penalty

L1_MODES: dict[str, tuple[Penalty, ...]] = {"prox": (L1ToGlobal(),), "weight": (L1(),), "none": ()}
REGULARIZERS: dict[str, tuple[Penalty, ...]] = {"l1": (L1(),), "l2": (L2(),), "none": (), "jacobian": ()}


def anl_ce(alpha: float = 5.0, beta: float = 5.0, delta: float = 5e-5, regularizer: str = "l1") -> Objective:
    """Active negative loss, alpha NCE + beta NNCE + delta x regularizer.

    ``regularizer``: "l1" (published), "l2" (half the squared norm; Clothing1M), "jacobian" or "none". Train with
    weight decay 0 unless it is "none".
    """
    return regularized(active_passive(nce(), alpha, nnce(), beta), delta, regularizer)


def anl_fl(
    alpha: float = 5.0,
    beta: float = 5.0,
    delta: float = 5e-5,
    gamma: float = 0.5,
    detach_modulator: bool = True,
    regularizer: str = "l1",
) -> Objective:
    """Active negative loss, alpha NFL + beta NNFL + delta x regularizer; regularizer as for anl-ce."""
    active, negative = nfl(gamma, detach_modulator), nnfl(gamma, detach_modulator)
    return regularized(active_passive(active, alpha, negative, beta), delta, regularizer)


def anl_ce_star(
    alpha: float = 5.0,
    beta: float = 5.0,
    delta: float = 5e-5,
    entropy_weight: float = 2.0,
    regularizer: str = "l1",
) -> Objective:
    """ANL-CE plus entropy_weight (log K - entropy of the batch's mean prediction), for non-symmetric noise."""
    return balanced(anl_ce(alpha, beta, delta, regularizer), entropy_weight)


def anl_fl_star(
    alpha: float = 5.0,
    beta: float = 5.0,
    delta: float = 5e-5,
    entropy_weight: float = 2.0,
    gamma: float = 0.5,
    detach_modulator: bool = True,
    regularizer: str = "l1",
) -> Objective:
    """ANL-FL plus entropy_weight (log K - entropy of the batch's mean prediction), for non-symmetric noise."""
    return balanced(anl_fl(alpha, beta, delta, gamma, detach_modulator, regularizer), entropy_weight)


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
    ANL-CE and SCE. ``l1_mode``: "prox" takes the L1 distance to the received global model, "weight" the L1 norm of
    the weights (with ANL's delta), "none" leaves it out. alpha = 0 is the purely symmetric reading.
    """
    expect(l1_mode in L1_MODES, f"l1_mode must be one of {', '.join(L1_MODES)}, got {l1_mode!r}")
    parts: tuple[tuple[float, ElementwiseLoss], ...] = (
        (nce_weight, nce()),
        (sce_weight * alpha, CrossEntropy()),
        (sce_weight * beta, ReverseCrossEntropy()),
        (nnce_weight, nnce()),
    )
    return Objective(WeightedSum(parts), penalties=weighted(delta, L1_MODES[l1_mode]))


def regularized(loss: ElementwiseLoss, delta: float, regularizer: str) -> Objective:
    """Return the objective ``loss`` + ``delta`` x the named regularizer.

    Raises
    ------
    ValueError
        If the name is unknown or ``delta`` is negative.
    """
    expect(regularizer in REGULARIZERS, f"regularizer must be one of {', '.join(REGULARIZERS)}, got {regularizer!r}")
    inputs = (Jacobian(),) if regularizer == "jacobian" else ()
    return Objective(loss, penalties=weighted(delta, REGULARIZERS[regularizer]), input_terms=weighted(delta, inputs))


def balanced(objective: Objective, entropy_weight: float) -> Objective:
    """Return ``objective`` with ANL*'s entropy term.

    Raises
    ------
    ValueError
        If ``entropy_weight`` is negative.
    """
    return replace(objective, batch_terms=weighted(entropy_weight, (EntropyOfMean(),)))
