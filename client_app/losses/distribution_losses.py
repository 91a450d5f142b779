"""Losses of the whole predicted distribution: reverse, normalized, normalized negative, logit-adjusted, T-Loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy.typing as npt
import torch
from torch import Tensor, nn

from client_app.losses.base import (
    IGNORE_INDEX,
    LOG_MIN_PROB,
    ElementwiseLoss,
    LabelLoss,
    Loss,
    check_shapes,
    expect,
    log_probabilities,
)
from client_app.losses.label_losses import CrossEntropy
from client_app.losses.registry import LOSSES

MIN_LABEL_PROB = 1e-4
"""Stands for the probability 0 of a class that is not the label, inside the logarithm of RCE."""


@LOSSES.register("rce", "Wang et al., ICCV 2019", "https://arxiv.org/abs/1908.06112")
@dataclass(frozen=True)
class ReverseCrossEntropy(ElementwiseLoss):
    """Reverse cross-entropy, -sum_k p_k log q_k with log 0 = log 1e-4: 9.21 x MAE.

    Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.
    Probabilities are clipped at 1e-7, as in the authors' code.
    """

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N, *D) of the given labels or label distributions."""
        probs = log_probs.clamp_min(LOG_MIN_PROB).exp()
        if target.is_floating_point():
            return -(probs * target.clamp(MIN_LABEL_PROB, 1.0).log()).sum(1)
        # Not "all minus the label's": that difference cancels when the label's probability is near 1.
        return -math.log(MIN_LABEL_PROB) * probs.scatter(1, target.unsqueeze(1), 0.0).sum(1)


@dataclass(frozen=True)
class Normalized(ElementwiseLoss):
    """A loss divided by its sum over all possible labels: symmetric, in [0, 1].

    Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020.
    Cross-entropy gives NCE, the focal loss NFL, MAE and RCE give (1-p)/(K-1).
    """

    loss: ElementwiseLoss

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the share (N, *D) of the given label's loss in the sum over all labels."""
        return self.loss.formula(log_probs, target) / self.loss.per_label(log_probs).sum(1)


@dataclass(frozen=True)
class NormalizedNegative(ElementwiseLoss):
    """The normalized negative form of a loss, 1 - (A - l_y) / sum_k (A - l_k): symmetric, in [0, 1].

    Ye et al., "Active Negative Loss Functions for Learning with Noisy Labels", NeurIPS 2023.
    A is the loss's largest value: that of a probability clipped at 1e-7. Cross-entropy gives NNCE, the focal loss
    NNFL. Classes below 1e-7 give no gradient.
    """

    loss: LabelLoss
    ceiling: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_minimum = self.loss.value(torch.tensor(LOG_MIN_PROB, dtype=torch.float64))
        object.__setattr__(self, "ceiling", at_minimum.item())

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return one minus the given label's share of the distances to A, (N, *D)."""
        clipped = log_probs.clamp_min(LOG_MIN_PROB)
        distance = self.ceiling - self.loss.formula(clipped, target)
        return 1 - distance / (self.ceiling - self.loss.per_label(clipped)).sum(1)


@dataclass(frozen=True, eq=False)
class LogitAdjustedCrossEntropy(ElementwiseLoss):
    """Cross-entropy of logits + tau log class share, against class imbalance at a client; tau = 0 is cross-entropy.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    ``margin`` (K,), or (N, K) where the examples are several clients', is tau log class share: -inf for a class without
    examples, which then has probability 0 and no gradient; as a target it has an infinite loss. Keep ``margin`` on the
    logits' device, or every call copies it.
    """

    margin: Tensor
    tau: float = 1.0

    @classmethod
    def from_counts(cls, class_counts: npt.ArrayLike | Tensor, tau: float = 1.0) -> "LogitAdjustedCrossEntropy":
        """Take the class shares from the number of examples per class, (K,), which may be 0 for some.

        Raises
        ------
        ValueError
            If a count is negative or all are 0, or ``tau`` is negative.
        """
        counts = torch.as_tensor(class_counts).double()
        expect(
            counts.dim() == 1 and bool((counts >= 0).all()) and bool(counts.sum() > 0),
            f"class_counts must be a list of counts >= 0, not all 0, got {counts.tolist()}",
        )
        expect(tau >= 0, f"tau must be at least 0, got {tau}")
        return cls((counts / counts.sum()).pow(tau).log(), tau)

    def for_counts(self, class_counts: Tensor) -> Self:
        """Return the loss with the margin of other labels; see ``Loss``."""
        return replace(self, margin=self.from_counts(class_counts, self.tau).margin)

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy (N, *D) under the adjusted logits."""
        classes = self.margin.shape[-1]
        expect(log_probs.shape[1] == classes, f"class_counts has {classes} classes, the logits {log_probs.shape[1]}")
        margin = self.margin.to(log_probs).reshape(*self.margin.shape, *[1] * (log_probs.dim() - 2))
        adjusted = torch.log_softmax(log_probs + margin, dim=1)
        if target.is_floating_point():
            # 0 x -inf is NaN: a class without examples and without target mass adds nothing.
            adjusted = adjusted.masked_fill(adjusted.isneginf() & (target == 0), 0.0)
        return CrossEntropy().formula(adjusted, target)

    def joined(self, losses: Sequence[ElementwiseLoss], rows: int) -> ElementwiseLoss | None:
        """Return the loss in which each client's rows have its own margin."""
        margins = [loss.margin for loss in losses if isinstance(loss, LogitAdjustedCrossEntropy)]
        return LogitAdjustedCrossEntropy(torch.stack(margins).float().repeat_interleave(rows, 0))


@LOSSES.register("la-ce", "Menon et al., ICLR 2021", "https://arxiv.org/abs/2007.07314")
def la_ce(
    num_classes: int, class_counts: npt.ArrayLike | Tensor | None = None, tau: float = 1.0
) -> LogitAdjustedCrossEntropy:
    """Logit-adjusted cross-entropy: CE(logits + tau log(class share at the client), label).

    Parameters
    ----------
    tau
        Strength of the adjustment; 0 is cross-entropy.

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


@dataclass(frozen=True, eq=False)
class TLoss(Loss):
    """T-Loss for binary masks (Gonzalez-Jimenez et al., MICCAI 2023): the negative log-likelihood of the error image.

    The error image is the foreground probability minus the mask; class 1 is the foreground. Every pixel carries its
    image's loss, so that a mean over pixels is the mean over images (weighted by their labelled pixels, if some are
    ignored: those are left out of the image). The loss grows with the number of pixels: compare it only between
    images of one size.

    ``log_nu`` is the logarithm of the degrees of freedom; an ``nn.Parameter`` of one element is learned with the model,
    by Adam with the learning rate ``parameter_rate``. ``form`` is "official" (the authors' code, whose precisions are
    e) or "paper" (unit scale matrix).
    """

    needs_pixels: ClassVar[bool] = True
    log_nu: float | Tensor = 1.0
    form: str = "official"
    parameter_rate: float = 1e-3  # type: ignore[misc]

    def __post_init__(self) -> None:
        expect(self.form in T_FORMS, f"form must be one of {', '.join(T_FORMS)}, got {self.form!r}")
        rate = self.parameter_rate
        expect(0 <= rate < math.inf, f"nu_rate must be at least 0, got {rate}")

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Return ``log_nu`` if it is learned."""
        return {"log_nu": self.log_nu} if isinstance(self.log_nu, nn.Parameter) else {}

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of its image at every pixel, (N, *D); see ``Loss``."""
        check_shapes(logits, target)
        expect(logits.shape[1] == 2, f"the T-Loss is for 2 classes (background, foreground), got {logits.shape[1]}")
        foreground = log_probabilities(logits)[:, 1].exp()
        if target.is_floating_point():
            ignored, mask = torch.zeros_like(foreground, dtype=torch.bool), target[:, 1]
        else:
            ignored, mask = target == IGNORE_INDEX, target
        error = (foreground - mask.to(foreground.dtype)).masked_fill(ignored, 0.0)
        image = self._per_image(per_example(error.square()), per_example((~ignored).to(error.dtype)))
        return image.reshape(-1, *[1] * (error.dim() - 1)).expand_as(error).masked_fill(ignored, 0.0)

    def _per_image(self, residual: Tensor, size: Tensor) -> Tensor:
        log_nu = self.log_nu if isinstance(self.log_nu, Tensor) else residual.new_full((), self.log_nu)
        return T_FORMS[self.form](residual, size, log_nu)


@LOSSES.register("t-loss", "Gonzalez-Jimenez et al., MICCAI 2023", "https://arxiv.org/abs/2306.00753")
def t_loss(num_classes: int, log_nu: float = 1.0, form: str = "official", nu_rate: float = 1e-3) -> TLoss:
    """T-Loss, the negative log-likelihood of a Student-t error image; binary masks only.

    Each client learns its own degrees of freedom, exp(log_nu), by Adam with the learning rate ``nu_rate``, published
    1e-3; they stay with the client. 0 leaves them as they start.

    Parameters
    ----------
    log_nu
        Logarithm of the degrees of freedom at the start: the smaller, the less an outlier counts.
    form
        "official": the authors' program, in which every precision is e; "paper": a unit scale matrix.
    nu_rate
        Learning rate of the degrees of freedom; 0 leaves them as they start.

    Raises
    ------
    ValueError
        If there are not 2 classes, or an argument is out of its range.
    """
    expect(num_classes == 2, f"is for 2 classes (background, foreground), not {num_classes}")
    return TLoss(nn.Parameter(torch.tensor(float(log_nu))) if nu_rate else log_nu, form, nu_rate)


def per_example(values: Tensor) -> Tensor:
    """Return the sums (N,) of ``values`` (N, *D) over everything but the examples."""
    return values.unsqueeze(-1).flatten(1).sum(1)


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


T_FORMS = {"official": student_t_official, "paper": student_t}
