"""Terms of an objective that look at a whole batch, not at single labels."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from client_app.losses.base import at_least_float32, expect
from client_app.losses.formulas import MIN_PROB


class BatchTerm(ABC):
    """A scalar function of a batch's predictions; the labels play no part. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, probabilities: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the term of ``probabilities`` (N, K, *D).

        Only elements where ``valid`` (N, *D), bool, holds count; None counts all.
        """


class InputTerm(ABC):
    """A scalar function of how a batch's logits depend on its inputs. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, logits: Tensor, inputs: Tensor) -> Tensor:
        """Return the term of ``logits`` (N, K) computed from ``inputs`` (N, ...).

        Raises
        ------
        ValueError
            If the shapes do not fit, or ``inputs`` does not require a gradient.
        """


@dataclass(frozen=True)
class EntropyOfMean(BatchTerm):
    """ANL*'s regulariser: log K minus the entropy of the mean prediction (Ye et al., 2024), 0 when it is uniform.

    Keeps a network from forgetting classes under non-symmetric noise. Predictions and their mean are clipped to
    [1e-7, 1 - 1e-7], as in the authors' code.
    """

    def __call__(self, probabilities: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return log K + sum_k pi_k log pi_k, where pi is the mean prediction."""
        clipped = probabilities.clamp(MIN_PROB, 1 - MIN_PROB)
        if valid is not None:
            clipped = clipped * valid.unsqueeze(1)
        totals = clipped.transpose(0, 1).flatten(1).sum(1)
        # The lower bound only matters for a batch without any valid element.
        mean = (totals / totals.sum().clamp_min(MIN_PROB)).clamp(MIN_PROB, 1 - MIN_PROB)
        return math.log(probabilities.shape[1]) + (mean * mean.log()).sum()


@dataclass(frozen=True)
class Jacobian(InputTerm):
    """Half the squared Frobenius norm of d logits / d inputs, averaged over the batch (Hoffman et al., 2019).

    Exact, hence deterministic: K backward passes in one batched call, no random projections. The trainer calls
    ``inputs.requires_grad_()`` before the forward pass.
    """

    def __call__(self, logits: Tensor, inputs: Tensor) -> Tensor:
        """Return sum_k |d logits_k / d inputs|^2 / 2, mean over the batch; differentiable again."""
        expect(logits.dim() == 2, f"the Jacobian term is for logits (N, K), one per example, got {tuple(logits.shape)}")
        expect(inputs.requires_grad, "the Jacobian term needs inputs.requires_grad_() before the forward pass")
        one_hot = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
        directions = one_hot.unsqueeze(1).expand(-1, *logits.shape)
        (jacobian,) = torch.autograd.grad(logits, inputs, directions, create_graph=True, is_grads_batched=True)
        return at_least_float32(jacobian).square().sum() / (2 * len(inputs))
