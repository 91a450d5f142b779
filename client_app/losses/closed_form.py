"""Closed-form gradients of the mean loss of a batch: autograd's operations in autograd's order, without its graph.

A robust loss is forty tiny operations on a batch, and a graph of them costs more time than the network of a small
client. Cross-entropy, its normalized forms, reverse cross-entropy and sums of them have a closed form here; what it
computes, forward and backward, and the order in which gradients are added, are those of ``Objective``, so that all bits
agree. Any other loss keeps its graph.
"""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from client_app.losses.base import IGNORE_INDEX, LOG_MIN_PROB, Loss, WeightedSum, log_probabilities
from client_app.losses.distribution_losses import MIN_LABEL_PROB, Normalized, NormalizedNegative, ReverseCrossEntropy
from client_app.losses.label_losses import CrossEntropy

Pull = Callable[[Tensor, Tensor | None], Tensor]
"""From slopes of the loss (N, *D), and what is summed already, the gradient by log-probabilities (N, K, *D)."""


class Labelled:
    """Log-probabilities (N, K, *D) with labels (N, *D), and what several parts of a loss take of both."""

    def __init__(self, log_probs: Tensor, target: Tensor) -> None:
        self.log_probs, self.target = log_probs, target
        self.index = target.unsqueeze(1)

        self._at_label: Tensor | None = None
        self._clipped: Labelled | None = None

    @property
    def at_label(self) -> Tensor:
        """Log-probabilities of the labels, (N, *D)."""
        if self._at_label is None:
            self._at_label = self.log_probs.gather(1, self.index).squeeze(1)
        return self._at_label

    @property
    def clipped(self) -> "Labelled":
        """The same with probabilities of at least 1e-7."""
        if self._clipped is None:
            self._clipped = Labelled(self.log_probs.clamp_min(LOG_MIN_PROB), self.target)
        return self._clipped

    def pull_clipped(self, gradient: Tensor, before: Tensor | None) -> Tensor:
        """Take a gradient by the clipped log-probabilities back to those before."""
        return added(before, gradient.masked_fill_(self.log_probs < LOG_MIN_PROB, 0.0))

    def pull_label(self, gradient: Tensor, before: Tensor | None) -> Tensor:
        """Take a gradient by the labels' log-probabilities back to all."""
        total = torch.zeros_like(self.log_probs) if before is None else before
        return total.scatter_add_(1, self.index, gradient.unsqueeze(1))


def added(before: Tensor | None, gradient: Tensor) -> Tensor:
    """Return the sum, in place of what was there before."""
    return gradient if before is None else before.add_(gradient)


def closed_mean(logits: Tensor, target: Tensor, loss: Loss) -> Tensor | None:
    """Return the mean of a loss that :func:`has_closed_form` over a training batch on a CPU, or None elsewhere.

    Parameters
    ----------
    logits, target
        As for ``Loss``; shapes were checked.
    """
    if not _applies(logits, target):
        return None
    mean: Tensor = _ClosedMean.apply(log_probabilities(logits), target, loss)
    return mean


def _applies(logits: Tensor, target: Tensor) -> bool:
    """Tell whether a graph would be built, on a CPU, over labels of which none is missing."""
    if logits.device.type != "cpu" or target.is_floating_point() or not (logits.requires_grad and target.numel()):
        return False
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False  # what traces the loss needs the plain one
    return torch.is_grad_enabled() and target.amin().item() != IGNORE_INDEX


class _ClosedMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, target: Tensor, loss: Loss) -> Tensor:
        value, ctx.pull = closed_form(loss, Labelled(log_probs, target))
        ctx.save_for_backward(log_probs)
        ctx.target, ctx.loss = target, loss
        return value.sum() / target.numel()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (log_probs,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants to differentiate again
            mean = ctx.loss.formula(log_probs, ctx.target).mean()
            return torch.autograd.grad(mean, log_probs, grad, create_graph=True)[0], None, None
        slope = (grad / ctx.target.numel()).expand(ctx.target.shape)
        return ctx.pull(slope, None), None, None


def has_closed_form(loss: Loss) -> bool:
    """Tell whether a loss and all its parts are built in, and have a closed form."""
    if not type(loss).__module__.startswith("client_app.losses."):  # a subclass may have another formula
        return False
    if isinstance(loss, Normalized | NormalizedNegative):
        return type(loss.loss) is CrossEntropy
    if isinstance(loss, WeightedSum):
        return all(has_closed_form(part) for _, part in loss.parts)
    return type(loss) in (CrossEntropy, ReverseCrossEntropy)


@singledispatch
def closed_form(loss: Loss, batch: Labelled) -> tuple[Tensor, Pull]:
    """Return the loss (N, *D) and what takes its slope back to the log-probabilities."""
    raise NotImplementedError(f"{type(loss).__name__} has no closed form")


@closed_form.register
def _(loss: CrossEntropy, batch: Labelled) -> tuple[Tensor, Pull]:
    return -batch.at_label, lambda grad, before: batch.pull_label(-grad, before)


@closed_form.register
def _(loss: WeightedSum, batch: Labelled) -> tuple[Tensor, Pull]:
    parts = [(weight, *closed_form(part, batch)) for weight, part in loss.parts if weight > 0]
    total, *others = [weight * value for weight, value, _ in parts]
    for value in others:
        total = total + value

    def pull(grad: Tensor, before: Tensor | None) -> Tensor:
        for weight, _, pull_part in reversed(parts):  # autograd goes backward through what came last first
            before = pull_part(grad * weight, before)
        assert before is not None
        return before

    return total, pull


@closed_form.register
def _(loss: ReverseCrossEntropy, batch: Labelled) -> tuple[Tensor, Pull]:
    probs, height = batch.clipped.log_probs.exp(), -math.log(MIN_LABEL_PROB)
    value = height * probs.scatter(1, batch.index, 0.0).sum(1)

    def pull(grad: Tensor, before: Tensor | None) -> Tensor:
        all_classes = (grad * height).unsqueeze(1).expand(probs.shape)
        return batch.pull_clipped(all_classes.scatter(1, batch.index, 0.0) * probs, before)

    return value, pull


@closed_form.register
def _(loss: Normalized, batch: Labelled) -> tuple[Tensor, Pull]:
    value, pull_value = closed_form(loss.loss, batch)
    total = (-batch.log_probs).sum(1)
    ratio = value / total

    def pull(grad: Tensor, before: Tensor | None) -> Tensor:
        by_total = grad * (ratio / total)  # twice minus: that of a quotient and that of -log p
        return pull_value(grad / total, added(before, spread(by_total, batch)))

    return ratio, pull


@closed_form.register
def _(loss: NormalizedNegative, batch: Labelled) -> tuple[Tensor, Pull]:
    value, pull_value = closed_form(loss.loss, batch.clipped)
    total = (loss.ceiling - -batch.clipped.log_probs).sum(1)
    ratio = (loss.ceiling - value) / total

    def pull(grad: Tensor, before: Tensor | None) -> Tensor:
        by_total = spread(grad * (ratio / total), batch)
        return batch.pull_clipped(pull_value(grad / total, by_total), before)

    return 1 - ratio, pull


def spread(gradient: Tensor, batch: Labelled) -> Tensor:
    """Return a gradient (N, *D) for each of the classes, (N, K, *D), to be added to in place."""
    return gradient.unsqueeze(1).expand(batch.log_probs.shape).contiguous()
