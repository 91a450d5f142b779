"""Closed-form gradients of the mean loss of a batch: autograd's operations in autograd's order, without its graph.

A robust loss is forty tiny operations on a batch, and a graph of them costs more time than the network of a small
client. Each built-in loss whose gradient is short to write has a closed form here; what it computes, forward and
backward, and the order in which gradients are added, are those of ``Objective``, so that all bits agree. Any other loss
keeps its graph.
"""

import math
from collections.abc import Callable
from functools import cached_property, singledispatch
from typing import Any

import torch
from torch import Tensor

from client_app.losses.base import IGNORE_INDEX, LOG_MIN_PROB, LabelLoss, Loss, WeightedSum, log_probabilities
from client_app.losses.distribution_losses import MIN_LABEL_PROB, Normalized, NormalizedNegative, ReverseCrossEntropy
from client_app.losses.label_losses import CrossEntropy

Pull = Callable[[Tensor, Tensor | None], Tensor]
"""From slopes of the loss (N, *D), and what is summed already, the gradient by log-probabilities (N, K, *D)."""


class Labelled:
    """Log-probabilities (N, K, *D) with labels (N, *D), and what several parts of a loss take of both."""

    def __init__(self, log_probs: Tensor, target: Tensor) -> None:
        self.log_probs, self.target = log_probs, target
        self.index = target.unsqueeze(1)

    @cached_property
    def at_label(self) -> Tensor:
        """Log-probabilities of the labels, (N, *D)."""
        return self.log_probs.gather(1, self.index).squeeze(1)

    @cached_property
    def clipped(self) -> "Labelled":
        """The same with probabilities of at least 1e-7."""
        return Labelled(self.log_probs.clamp_min(LOG_MIN_PROB), self.target)

    @cached_property
    def _above(self) -> Tensor:
        return self.log_probs >= LOG_MIN_PROB

    def pull_clipped(self, gradient: Tensor, before: Tensor | None) -> Tensor:
        """Take a gradient by the clipped log-probabilities back to those before."""
        return added(before, gradient.masked_fill_(~self._above, 0.0))

    def pull_label(self, gradient: Tensor, before: Tensor | None) -> Tensor:
        """Take a gradient by the labels' log-probabilities back to all."""
        total = torch.zeros_like(self.log_probs) if before is None else before
        return total.scatter_add_(1, self.index, gradient.unsqueeze(1))


def added(before: Tensor | None, gradient: Tensor) -> Tensor:
    """Return the sum, in place of what was there before."""
    return gradient if before is None else before.add_(gradient)


def closed_mean(logits: Tensor, target: Tensor, loss: Loss) -> Tensor | None:
    """Return the mean loss of a training batch on a CPU, or None where there is no closed form for it.

    Parameters
    ----------
    logits, target
        As for ``Loss``; shapes were checked.
    """
    if not (_applies(logits, target) and has_closed_form(loss)):
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
    parts = [part for _, part in loss.parts] if isinstance(loss, WeightedSum) else [getattr(loss, "loss", None)]
    known = type(loss).__module__.startswith("client_app.losses.")  # a subclass may have another formula
    if isinstance(loss, Normalized | NormalizedNegative):
        return known and isinstance(loss.loss, LabelLoss) and has_closed_form(loss.loss)
    if isinstance(loss, WeightedSum):
        return known and all(has_closed_form(part) for part in parts if part is not None)
    return known and isinstance(loss, LabelLoss | ReverseCrossEntropy)


@singledispatch
def closed_form(loss: Loss, batch: Labelled) -> tuple[Tensor, Pull]:
    """Return the loss (N, *D) and what takes its slope back to the log-probabilities."""
    raise NotImplementedError(f"{type(loss).__name__} has no closed form")


@closed_form.register
def _(loss: LabelLoss, batch: Labelled) -> tuple[Tensor, Pull]:
    value, slope = value_and_slope(loss, batch.at_label)
    return value, lambda grad, before: batch.pull_label(slope(grad), before)


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
    each, slope = value_and_slope(loss.loss, batch.log_probs)
    total = each.sum(1)
    ratio = value / total

    def pull(grad: Tensor, before: Tensor | None) -> Tensor:
        by_total = (-grad * (ratio / total)).unsqueeze(1).expand(each.shape)
        return pull_value(grad / total, added(before, slope(by_total)))

    return ratio, pull


@closed_form.register
def _(loss: NormalizedNegative, batch: Labelled) -> tuple[Tensor, Pull]:
    value, pull_value = closed_form(loss.loss, batch.clipped)
    each, slope = value_and_slope(loss.loss, batch.clipped.log_probs)
    total = (loss.ceiling - each).sum(1)
    ratio = (loss.ceiling - value) / total

    def pull(grad: Tensor, before: Tensor | None) -> Tensor:
        by_each = (
            (-grad * (ratio / total)).unsqueeze(1).expand(each.shape)
        )  # 1 - ratio, and ceiling - each: twice minus
        return batch.pull_clipped(pull_value(grad / total, slope(by_each)), before)

    return 1 - ratio, pull


def value_and_slope(loss: LabelLoss, log_p: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the loss of log-probabilities of any shape, and what takes a gradient by it back to them."""
    if type(loss) is CrossEntropy:
        return -log_p, lambda grad: -grad
    with torch.enable_grad():
        leaf = log_p.detach().requires_grad_()
        value = loss.value(leaf)
    return value.detach(), lambda grad: torch.autograd.grad(value, leaf, grad, retain_graph=True)[0]
