"""The mathematics of the losses as plain functions; the classes around them check parameters and shapes.

Legend: ``log_p`` is the log-probability that the model gives to a label, of any shape; ``log_probs``
(N, K, *D) holds it for each of the K classes. Where a probability can reach exactly 0 or 1, the functions
are written so that value and gradient stay finite in float32.
"""

import math

import torch
from torch import Tensor

MIN_PROB = 1e-7
"""Probabilities below this are clipped by GCE, RCE, NNCE and NNFL, as in the authors' code; no gradient there."""

LOG_MIN_PROB = math.log(MIN_PROB)

MIN_LABEL_PROB = 1e-4
"""Stands for the probability 0 of a class that is not the label, inside the logarithm of RCE."""


def cross_entropy(log_p: Tensor) -> Tensor:
    """Return -log p."""
    return -log_p


def focal(log_p: Tensor, gamma: float, detach_modulator: bool) -> Tensor:
    """Return -(1-p)^gamma log p; ``detach_modulator`` treats (1-p)^gamma as a constant in the gradient."""
    # The smallest positive number in place of 1-p = 0: the power's derivative there is infinite for gamma < 1.
    modulator = complement(log_p).clamp_min(torch.finfo(log_p.dtype).tiny).pow(gamma)
    return -(modulator.detach() if detach_modulator else modulator) * log_p


def mean_absolute_error(log_p: Tensor, scale: float) -> Tensor:
    """Return scale (1-p)."""
    return scale * complement(log_p)


def generalized_cross_entropy(log_p: Tensor, q: float) -> Tensor:
    """Return (1-p^q)/q with p clipped at ``MIN_PROB``."""
    return -torch.expm1(q * log_p.clamp_min(LOG_MIN_PROB)) / q


def partially_huberised_cross_entropy(log_p: Tensor, tau: float) -> Tensor:
    """Return -log p, continued by its tangent at p = 1/tau for smaller p."""
    p = log_p.exp()
    return torch.where(p * tau <= 1, 1 + math.log(tau) - tau * p, -log_p)


def taylor_cross_entropy(log_p: Tensor, t: int) -> Tensor:
    """Return the first t terms of -log p = sum_i (1-p)^i / i, by Horner's rule."""
    rest = complement(log_p)
    total = torch.full_like(rest, 1 / t)
    for i in range(t - 1, 0, -1):
        total = 1 / i + rest * total
    return rest * total


def asymmetric_generalized_cross_entropy(log_p: Tensor, a: float, q: float) -> Tensor:
    """Return ((a+1)^q - (a+p)^q)/q."""
    return (math.pow(a + 1, q) - (a + log_p.exp()).pow(q)) / q


def asymmetric_unhinged(log_p: Tensor, a: float, q: float) -> Tensor:
    """Return ((a-p)^q - (a-1)^q)/q."""
    return ((a - log_p.exp()).pow(q) - math.pow(a - 1, q)) / q


def asymmetric_exponential(log_p: Tensor, a: float) -> Tensor:
    """Return exp(-p/a)."""
    return torch.exp(-log_p.exp() / a)


def reverse_cross_entropy(log_probs: Tensor, target: Tensor) -> Tensor:
    """Return -sum_k p_k log q_k with p and the labels' distribution q clipped; ``target`` is hard or soft."""
    probs = log_probs.clamp_min(LOG_MIN_PROB).exp()
    if target.is_floating_point():
        return -(probs * target.clamp(MIN_LABEL_PROB, 1.0).log()).sum(1)
    # Not "all minus the label's": that difference cancels when the label's probability is near 1.
    return -math.log(MIN_LABEL_PROB) * probs.scatter(1, target.unsqueeze(1), 0.0).sum(1)


def student_t(residual: Tensor, size: Tensor, log_nu: Tensor) -> Tensor:
    """Return the negative log-likelihood of a Student-t vector with unit scale matrix.

    ``residual`` (N,) is its squared length, ``size`` (N,) its number of elements D, exp(``log_nu``) its degrees
    of freedom nu. The paper's form of the T-Loss.
    """
    nu = log_nu.exp()
    normaliser = torch.lgamma(nu / 2) - torch.lgamma((nu + size) / 2) + size / 2 * (math.log(math.pi) + log_nu)
    return normaliser + (nu + size) / 2 * torch.log1p(residual / nu)


def student_t_official(residual: Tensor, size: Tensor, log_nu: Tensor) -> Tensor:
    """Return the T-Loss of the authors' code: ``student_t`` with every precision e instead of 1.

    Their code keeps the logarithms of the precisions at 1, which scales the residual by e and adds -D/2, and puts
    1e-8 on nu, log nu and the log-precisions.
    """
    epsilon = 1e-8
    nu = log_nu.exp() + epsilon
    log_precision = 1 + epsilon
    normaliser = torch.lgamma(nu / 2) - torch.lgamma((nu + size) / 2)
    determinant = size / 2 * (math.log(math.pi) + log_nu + epsilon - log_precision)
    return normaliser + determinant + (nu + size) / 2 * torch.log1p(residual * math.exp(log_precision) / nu)


def complement(log_p: Tensor) -> Tensor:
    """Return 1-p with all the digits that ``log_p`` has when p is near 1."""
    return -torch.expm1(log_p)
