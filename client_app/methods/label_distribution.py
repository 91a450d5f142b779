"""Labels that are learned: a distribution per example, trained beside the network.

After PENCIL (Yi and Wu, CVPR 2019), as FedELC (Jiang et al., CIKM 2024) and MaskedOptim (arXiv 2506.02079, 2025) use
it at clients with noisy labels. Notation: p = softmax(logits) is what the model says, d = softmax(label logits) is the
learned label, y the given one, K the number of classes.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.goals import Batch, Goal

Form = Literal["code", "paper"]
MaskRule = Literal["small-loss", "agreement"]


@dataclass(frozen=True)
class ThreeTerms:
    """How far p, d and y are apart, example by example.

    - ``code``, the authors' program: KL(p || d) / K + alpha m (-log d_y) + beta H(p) / K. The mask m is in the middle
      term only, which does not depend on the network: it frees the learned label of an example with a large loss from
      the given one. The entropy H(p) has a negative coefficient in all, (beta - 1) / K, for KL(p || d) contains -H(p).
    - ``paper``, the formulas as printed: m (CE(d, p) + alpha (-log d_y) + beta H(p)) with CE(d, p) = -sum_k d_k log p_k
      and no 1 / K: examples with a large loss are left out, and entropy is minimised.

    The mask m is 1 or 0. By the rule ``small-loss`` it is 1 for the ``keep`` share of a batch with the smallest
    cross-entropy -log p_y; keep = 1 is no mask. By the rule ``agreement`` it is 1 where y is the most likely class:
    as many as the model believes, however many labels are wrong.
    """

    form: Form
    alpha: float
    beta: float
    keep: float
    rule: MaskRule = "small-loss"

    def __call__(self, logits: Tensor, label_logits: Tensor, given: Tensor) -> Tensor:
        """Return the loss (B,) of each example, from logits and label logits (B, K) and given labels (B,)."""
        log_p, log_d = torch.log_softmax(logits, 1), torch.log_softmax(label_logits, 1)
        mask = self._mask(log_p.detach(), given)
        p, classes = log_p.exp(), logits.shape[1]
        entropy = -(p * log_p).sum(1)
        compatibility = self.alpha * F.nll_loss(log_d, given, reduction="none")
        if self.form == "code":
            divergence = (p * (log_p - log_d)).sum(1)
            return (divergence + self.beta * entropy) / classes + mask * compatibility
        classification = -(log_d.exp() * log_p).sum(1)
        return mask * (classification + compatibility + self.beta * entropy)

    def _mask(self, log_p: Tensor, given: Tensor) -> Tensor:
        if self.rule == "agreement":
            return (log_p.argmax(1) == given).to(log_p.dtype)
        return small_loss(F.nll_loss(log_p, given, reduction="none"), self.keep)


def small_loss(losses: Tensor, keep: float) -> Tensor:
    """Return 1 for the floor(keep x B) smallest of ``losses`` (B,), 0 for the others, as floats."""
    count = math.floor(keep * len(losses) + 1e-9)  # 0.29 * 100 is a little less than 29
    return torch.zeros_like(losses).index_fill_(0, torch.argsort(losses, stable=True)[:count], 1.0)


class LabelLearning(Goal):
    """Trains the network by batches and the labels by epochs, both on the three terms.

    At the end of an epoch each example's label logits take one step of ``rate`` against the gradient of its own loss;
    a short last batch moves its labels as far as any other, and an example that was not seen keeps its label.
    The mean over a batch of B divides gradients by B, so a published rate eta at batch size B is ``rate`` = eta / B.
    """

    def __init__(self, label_logits: Tensor, terms: ThreeTerms, rate: float) -> None:
        self.label_logits = label_logits
        self._terms = terms
        self._rate = rate
        self._slopes = torch.zeros_like(label_logits)

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the mean of the three terms; see :class:`Goal`."""
        label_logits = self.label_logits[batch.indices].requires_grad_()
        label_logits.register_hook(partial(self._note, batch.indices))  # type: ignore[no-untyped-call]
        return self._terms(logits, label_logits, batch.labels).mean()

    def _note(self, indices: Tensor, gradient: Tensor) -> None:
        self._slopes[indices] = gradient * len(indices)

    def end_epoch(self) -> None:
        """Move all labels seen in this epoch."""
        self.label_logits -= self._rate * self._slopes
        self._slopes.zero_()
