"""Losses of the whole predicted distribution: reverse, normalized, normalized negative, logit-adjusted."""

from dataclasses import dataclass, field

import numpy.typing as npt
import torch
from torch import Tensor

from client_app.losses import formulas
from client_app.losses.base import ElementwiseLoss, LabelLoss, expect
from client_app.losses.label_losses import CrossEntropy


@dataclass(frozen=True)
class ReverseCrossEntropy(ElementwiseLoss):
    """Reverse cross-entropy, -sum_k p_k log q_k with log 0 = log 1e-4: 9.21 x MAE.

    Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.
    Probabilities are clipped at 1e-7, as in the authors' code.
    """

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N, *D) of the given labels or label distributions."""
        return formulas.reverse_cross_entropy(log_probs, target)


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
        at_minimum = self.loss.value(torch.tensor(formulas.LOG_MIN_PROB, dtype=torch.float64))
        object.__setattr__(self, "ceiling", at_minimum.item())

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return one minus the given label's share of the distances to A, (N, *D)."""
        clipped = log_probs.clamp_min(formulas.LOG_MIN_PROB)
        distance = self.ceiling - self.loss.formula(clipped, target)
        return 1 - distance / (self.ceiling - self.loss.per_label(clipped)).sum(1)


@dataclass(frozen=True, eq=False)
class LogitAdjustedCrossEntropy(ElementwiseLoss):
    """Cross-entropy of logits + tau log prior, against class imbalance at a client; tau = 0 is cross-entropy.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    ``margin`` (K,) is tau log prior: -inf for a class without examples, which then has probability 0 and no
    gradient; as a target it has an infinite loss. Keep ``margin`` on the logits' device, or every call copies it.
    """

    margin: Tensor

    @classmethod
    def from_counts(cls, class_counts: npt.ArrayLike | Tensor, tau: float = 1.0) -> "LogitAdjustedCrossEntropy":
        """Take the prior from the number of examples per class, (K,), which may be 0 for some.

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
        return cls((counts / counts.sum()).pow(tau).log())

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy (N, *D) under the adjusted logits."""
        classes = len(self.margin)
        expect(log_probs.shape[1] == classes, f"class_counts has {classes} classes, the logits {log_probs.shape[1]}")
        margin = self.margin.to(log_probs).reshape(-1, *[1] * (log_probs.dim() - 2))
        adjusted = torch.log_softmax(log_probs + margin, dim=1)
        if target.is_floating_point():
            # 0 x -inf is NaN: a class without examples and without target mass adds nothing.
            adjusted = adjusted.masked_fill(adjusted.isneginf() & (target == 0), 0.0)
        return CrossEntropy().formula(adjusted, target)
