"""Losses of the label's own probability p: the cross-entropy family and the asymmetric losses.

Each formula takes log p. Where p can reach exactly 0 or 1, it is written so that value and gradient stay finite in
float32.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from client_app.losses.base import LOG_MIN_PROB, LabelLoss, expect
from client_app.losses.registry import LOSSES

ZHOU = ("Zhou et al., ICML 2021", "https://arxiv.org/abs/2106.03110")


@LOSSES.register("ce")
@dataclass(frozen=True)
class CrossEntropy(LabelLoss):
    """Cross-entropy, -log p; not robust: an outlier's loss has no bound."""

    linear: ClassVar[bool] = True

    def value(self, log_p: Tensor) -> Tensor:
        """Return -log p."""
        return -log_p


@LOSSES.register("focal", "Lin et al., ICCV 2017", "https://arxiv.org/abs/1708.02002")
@dataclass(frozen=True)
class Focal(LabelLoss):
    """Focal loss, -(1-p)^gamma log p; gamma = 0 is cross-entropy.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Parameters
    ----------
    gamma
        Exponent: the larger, the less an example counts that is already classified well. 0 is cross-entropy.
    detach_modulator
        Whether (1-p)^gamma is a constant in the gradient, as in the code behind the published results of NFL and ANL;
        false gives the true derivative of the formula. Values are the same.
    """

    gamma: float = 0.5
    detach_modulator: bool = True
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        expect(self.gamma >= 0, f"gamma must be at least 0, got {self.gamma}")

    def value(self, log_p: Tensor) -> Tensor:
        """Return -(1-p)^gamma log p."""
        # The smallest positive number in place of 1-p = 0: the power's derivative there is infinite for gamma < 1.
        modulator = complement(log_p).clamp_min(torch.finfo(log_p.dtype).tiny).pow(self.gamma)
        return -(modulator.detach() if self.detach_modulator else modulator) * log_p


@LOSSES.register("mae", "Ghosh, Kumar and Sastry, AAAI 2017", "https://arxiv.org/abs/1712.09482")
@dataclass(frozen=True)
class MeanAbsoluteError(LabelLoss):
    """Mean absolute error, scale (1-p): symmetric, robust, slow to learn.

    Ghosh, Kumar and Sastry, "Robust Loss Functions under Label Noise for Deep Neural Networks", AAAI 2017.
    For a label distribution q the loss is scale/2 sum_k |p_k - q_k|.

    Parameters
    ----------
    scale
        1 is what the APL and ANL codes use; 2 is the papers' sum_k |p_k - q_k|.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        expect(self.scale > 0, f"scale must be positive, got {self.scale}")

    def value(self, log_p: Tensor) -> Tensor:
        """Return scale (1-p)."""
        return self.scale * complement(log_p)

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N, *D) of the given labels or label distributions."""
        if target.is_floating_point():
            return self.scale / 2 * (log_probs.exp() - target).abs().sum(1)
        return super().formula(log_probs, target)


@LOSSES.register("gce", "Zhang and Sabuncu, NeurIPS 2018", "https://arxiv.org/abs/1805.07836")
@dataclass(frozen=True)
class GeneralizedCrossEntropy(LabelLoss):
    """Generalized cross-entropy, (1-p^q)/q; q -> 0 is cross-entropy, q = 1 is MAE.

    Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training DNNs with Noisy Labels", NeurIPS 2018.
    p is clipped at 1e-7: less likely labels give no gradient.

    Parameters
    ----------
    q
        From 0, cross-entropy, to 1, MAE.
    """

    q: float = 0.7

    def __post_init__(self) -> None:
        expect(0 < self.q <= 1, f"q must be in (0, 1], got {self.q}")

    def value(self, log_p: Tensor) -> Tensor:
        """Return (1-p^q)/q."""
        return -torch.expm1(self.q * log_p.clamp_min(LOG_MIN_PROB)) / self.q


@LOSSES.register("phce", "Menon et al., ICLR 2020", "https://openreview.net/forum?id=rklB76EKPr")
@dataclass(frozen=True)
class PartiallyHuberisedCrossEntropy(LabelLoss):
    """Partially Huberised cross-entropy: -log p, linear in p below p = 1/tau; tau = 1 is MAE.

    tau -> infinity is cross-entropy. Menon et al., "Can gradient clipping mitigate label noise?", ICLR 2020.

    Parameters
    ----------
    tau
        Bound on the gradient: below p = 1/tau the loss is linear. 1 is MAE.
    """

    tau: float = 2.0

    def __post_init__(self) -> None:
        expect(self.tau >= 1, f"tau must be at least 1, got {self.tau}")

    def value(self, log_p: Tensor) -> Tensor:
        """Return -log p, or its tangent at 1/tau for smaller p."""
        p = log_p.exp()
        return torch.where(p * self.tau <= 1, 1 + math.log(self.tau) - self.tau * p, -log_p)


@LOSSES.register("tce", "Feng et al., IJCAI 2020", "https://www.ijcai.org/proceedings/2020/305")
@dataclass(frozen=True)
class TaylorCrossEntropy(LabelLoss):
    """Taylor cross-entropy, sum_{i=1..t} (1-p)^i / i; t = 1 is MAE, t -> infinity cross-entropy.

    Feng et al., "Can Cross Entropy Loss Be Robust to Label Noise?", IJCAI 2020. Not the Taylor softmax.

    Parameters
    ----------
    t
        Terms of the series, from 1, MAE, on.
    """

    t: int = 2

    def __post_init__(self) -> None:
        expect(isinstance(self.t, int) and self.t >= 1, f"t, a number of terms, must be an integer >= 1, got {self.t}")

    def value(self, log_p: Tensor) -> Tensor:
        """Return the first t terms of the series of -log p around p = 1, by Horner's rule."""
        rest = complement(log_p)
        total = torch.full_like(rest, 1 / self.t)
        for i in range(self.t - 1, 0, -1):
            total = 1 / i + rest * total
        return rest * total


@LOSSES.register("agce", *ZHOU)
@dataclass(frozen=True)
class AsymmetricGeneralizedCrossEntropy(LabelLoss):
    """Asymmetric generalized cross-entropy, ((a+1)^q - (a+p)^q)/q; q = 1 is MAE, a -> 0 GCE.

    Zhou et al., "Asymmetric Loss Functions for Learning with Noisy Labels", ICML 2021.

    Parameters
    ----------
    a
        Shift of the probability, above 0; near 0 it is GCE.
    q
        Exponent; 1 is MAE.
    """

    a: float = 0.6
    q: float = 0.6

    def __post_init__(self) -> None:
        expect(self.a > 0, f"a must be positive, got {self.a}")
        expect(self.q > 0, f"q must be positive, got {self.q}")

    def value(self, log_p: Tensor) -> Tensor:
        """Return ((a+1)^q - (a+p)^q)/q."""
        return (math.pow(self.a + 1, self.q) - (self.a + log_p.exp()).pow(self.q)) / self.q


@LOSSES.register("aul", *ZHOU)
@dataclass(frozen=True)
class AsymmetricUnhinged(LabelLoss):
    """Asymmetric unhinged loss, ((a-p)^q - (a-1)^q)/q; q = 1 is MAE.

    Zhou et al., "Asymmetric Loss Functions for Learning with Noisy Labels", ICML 2021.

    Parameters
    ----------
    a
        Shift, above 1; with q above 1 the nearer to 1, the less is learned from likely labels.
    q
        Exponent; 1 is MAE.
    """

    a: float = 5.5
    q: float = 3.0

    def __post_init__(self) -> None:
        expect(self.a > 1, f"a must be above 1, got {self.a}")
        expect(self.q > 0, f"q must be positive, got {self.q}")

    def value(self, log_p: Tensor) -> Tensor:
        """Return ((a-p)^q - (a-1)^q)/q."""
        return ((self.a - log_p.exp()).pow(self.q) - math.pow(self.a - 1, self.q)) / self.q


@LOSSES.register("ael", *ZHOU)
@dataclass(frozen=True)
class AsymmetricExponential(LabelLoss):
    """Asymmetric exponential loss, exp(-p/a); for large a, a x loss is MAE up to a constant.

    Zhou et al., "Asymmetric Loss Functions for Learning with Noisy Labels", ICML 2021.

    Parameters
    ----------
    a
        Scale of the probability; the larger, the nearer to MAE.
    """

    a: float = 2.5

    def __post_init__(self) -> None:
        expect(self.a > 0, f"a must be positive, got {self.a}")

    def value(self, log_p: Tensor) -> Tensor:
        """Return exp(-p/a)."""
        return torch.exp(-log_p.exp() / self.a)


def complement(log_p: Tensor) -> Tensor:
    """Return 1-p with all the digits that ``log_p`` has when p is near 1."""
    return -torch.expm1(log_p)
