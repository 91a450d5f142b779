"""Joint objective: what several clients minimise side by side, the mean of each one's own loss plus its regularizers.

Shapes: C clients, B examples in a batch of each, padded where a client has fewer; K classes, *D any further dimensions.
A gradient of the sum over the clients holds every client's own: they share no parameter.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from client_app.losses.base import IGNORE_INDEX, MIN_PROB, ElementwiseLoss, at_least_float32
from client_app.losses.objective import Objective
from client_app.losses.regularizers import L1, L2, EntropyOfMean, L1ToGlobal, L2ToGlobal, Regularizer


@dataclass(frozen=True)
class JointInput:
    """What the regularizers of all clients may look at in one step.

    Attributes
    ----------
    logits
        What the models answered, (C, B, K, *D), float32.
    share
        1 where an element counts, 0 where it is padding or has no label, (C, B, *D), float32.
    parameters, start
        Each trained parameter of all models (C, ...), and as all of them received it (1, ...).
    """

    logits: Tensor
    share: Tensor
    parameters: Sequence[Tensor]
    start: Sequence[Tensor]


class JointObjective:
    """The objectives of C clients as one.

    Raises
    ------
    NotJointError
        If they cannot be computed together; the message says why.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._losses = [_elementwise(objective) for objective in objectives]
        self._joined: dict[int, ElementwiseLoss] = {}
        self._terms = _terms(objectives)
        self.joined(1)

    def joined(self, size: int) -> ElementwiseLoss:
        """Return the one loss of all clients' elements, ``size`` rows of the first client and so on."""
        if size not in self._joined:
            loss = self._losses[0].joined(self._losses, size)
            if loss is None:
                raise NotJointError(f"the loss {type(self._losses[0]).__name__} differs between clients")
            self._joined[size] = loss
        return self._joined[size]

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        share: Tensor,
        parameters: Sequence[Tensor],
        start: Sequence[Tensor],
    ) -> Tensor:
        """Return what each client minimises, (C,).

        ``labels`` are (C, B, *D), ``share`` (C, B) is 1 for an example and 0 for padding; all others as in
        :class:`JointInput`.
        """
        counted = share.reshape(*share.shape, *[1] * (labels.dim() - 2)) * (labels != IGNORE_INDEX)
        values = self.joined(logits.shape[1])(logits.flatten(0, 1), labels.flatten(0, 1)).view(labels.shape)
        total = mean_of_each(values, counted)
        batch = JointInput(logits, counted, parameters, start)
        for coefficients, regularizer in self._terms:
            total = total + coefficients.to(total) * OF_EACH[type(regularizer)](batch)
        return total


class NotJointError(ValueError):
    """Something cannot be computed for several clients at once; the message says what, as the end of a sentence."""


def mean_of_each(values: Tensor, share: Tensor) -> Tensor:
    """Return each client's mean (C,) of ``values`` (C, B, *D) weighted by ``share``; 0 where nothing counts."""
    counts = share.flatten(1).sum(1).clamp_min(torch.finfo(values.dtype).tiny)
    return (values * share).flatten(1).sum(1) / counts


def _elementwise(objective: Objective) -> ElementwiseLoss:
    loss = objective.loss
    if not isinstance(loss, ElementwiseLoss):
        raise NotJointError(f"the loss {loss} may look at several elements of a batch")
    if loss.parameters():
        raise NotJointError(f"the loss {type(loss).__name__} learns parameters of its own at each client")
    return loss


def _terms(objectives: Sequence[Objective]) -> list[tuple[Tensor, Regularizer]]:
    """Return all regularizers with each client's coefficient (C,), 0 for a client without it."""
    found: list[Regularizer] = []
    for objective in objectives:
        found += [regularizer for _, regularizer in objective.regularizers if regularizer not in found]
    for regularizer in found:
        if type(regularizer) not in OF_EACH:
            raise NotJointError(f"the regularizer {type(regularizer).__name__} looks at one client at a time")
    return [
        (torch.tensor([sum(c for c, own in one.regularizers if own == wanted) for one in objectives]), wanted)
        for wanted in found
    ]


def _drift(batch: JointInput) -> list[Tensor]:
    return [parameter - start for parameter, start in zip(batch.parameters, batch.start, strict=True)]


def _l1(tensors: Sequence[Tensor]) -> Tensor:
    norms: Tensor = _L1OfEach.apply(*tensors)
    return norms


def _half_squared_l2(tensors: Sequence[Tensor]) -> Tensor:
    norms: Tensor = _HalfSquaredL2OfEach.apply(*tensors)
    return norms


def squared_norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return each client's sum of x^2 over all its elements of ``tensors`` (C, ...), (C,)."""
    return torch.stack([torch.linalg.vector_norm(x.flatten(1), dim=1) for x in tensors]).square().sum(0)


def of_clients(values: Tensor, like: Tensor) -> Tensor:
    """Return ``values`` (C,) in a shape that multiplies each client's part of ``like`` (C, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


class _L1OfEach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return torch.stack([torch.linalg.vector_norm(x.flatten(1), 1, dim=1) for x in tensors]).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.sign().mul_(of_clients(grad, x)) for x in ctx.saved_tensors)


class _HalfSquaredL2OfEach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return squared_norms(tensors) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(x * of_clients(grad, x) for x in ctx.saved_tensors)


def _entropy_of_mean(batch: JointInput) -> Tensor:
    """Return :class:`EntropyOfMean` of each client."""
    clipped = torch.softmax(at_least_float32(batch.logits), 2).clamp(MIN_PROB, 1 - MIN_PROB)
    totals = (clipped * batch.share.unsqueeze(2)).transpose(1, 2).flatten(2).sum(2)
    mean = (totals / totals.sum(1, keepdim=True).clamp_min(MIN_PROB)).clamp(MIN_PROB, 1 - MIN_PROB)
    return math.log(totals.shape[1]) + (mean * mean.log()).sum(1)


OF_EACH: dict[type[Regularizer], Callable[[JointInput], Tensor]] = {
    L1: lambda batch: _l1(batch.parameters),
    L2: lambda batch: _half_squared_l2(batch.parameters),
    L1ToGlobal: lambda batch: _l1(_drift(batch)),
    L2ToGlobal: lambda batch: _half_squared_l2(_drift(batch)),
    EntropyOfMean: _entropy_of_mean,
}
"""For each kind of regularizer its value for each client, (C,)."""
