"""Penalties on a model's weights: towards zero (ANL) or towards the received global model (FSANL, FedProx).

All parameters count: weights, biases, normalisation weights; buffers do not. Each penalty is one multi-tensor
computation in both directions, not one per parameter: a GPU would spend longer starting those than the network's step.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from client_app.losses.base import expect

Anchor = Mapping[str, Tensor]
"""The received global model's parameters, by the names of ``model.named_parameters()``."""


class Penalty(ABC):
    """A scalar function of a model's weights. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, model: nn.Module, anchor: Anchor) -> Tensor:
        """Return the penalty, a differentiable scalar.

        Raises
        ------
        ValueError
            If the penalty compares with ``anchor`` and a parameter is missing there or has another shape.
        """


@dataclass(frozen=True)
class L1(Penalty):
    """Sum of |w| over all parameters, as in the ANL code (Ye et al., NeurIPS 2023); sub-gradient 0 at 0."""

    def __call__(self, model: nn.Module, anchor: Anchor) -> Tensor:
        """Return sum |w|; ``anchor`` is not looked at."""
        return l1_norm(list(model.parameters()))


@dataclass(frozen=True)
class L2(Penalty):
    """Half the sum of w^2: a coefficient c acts like SGD's ``weight_decay = c``."""

    def __call__(self, model: nn.Module, anchor: Anchor) -> Tensor:
        """Return sum w^2 / 2; ``anchor`` is not looked at."""
        return half_squared_l2_norm(list(model.parameters()))


@dataclass(frozen=True)
class L1ToGlobal(Penalty):
    """Sum of |w - anchor|, our reading of FSANL's global L1 term; sub-gradient 0 at equality."""

    def __call__(self, model: nn.Module, anchor: Anchor) -> Tensor:
        """Return sum |w - anchor|."""
        return l1_norm(drift(model, anchor))


@dataclass(frozen=True)
class L2ToGlobal(Penalty):
    """Half the squared distance to the anchor: with coefficient mu, the proximal term of FedProx (Li et al., 2020)."""

    def __call__(self, model: nn.Module, anchor: Anchor) -> Tensor:
        """Return sum (w - anchor)^2 / 2."""
        return half_squared_l2_norm(drift(model, anchor))


def drift(model: nn.Module, anchor: Anchor) -> list[Tensor]:
    """Return each parameter of ``model`` minus that of ``anchor``, differentiable in the model's.

    Raises
    ------
    ValueError
        If a parameter is missing in ``anchor`` or has another shape there.
    """
    parameters = dict(model.named_parameters())
    wrong = [name for name, p in parameters.items() if name not in anchor or anchor[name].shape != p.shape]
    expect(
        not wrong,
        f"the anchor must hold every parameter of the model in its shape; missing or different: {', '.join(wrong)}",
    )
    received = [anchor[name].detach().to(p) for name, p in parameters.items()]
    return list(torch._foreach_sub(list(parameters.values()), received))


def l1_norm(tensors: list[Tensor]) -> Tensor:
    """Return the sum of |x| over all elements of ``tensors``, in float32 at least; its gradient is sign(x)."""
    norm: Tensor = _L1Norm.apply(*tensors)
    return norm


def half_squared_l2_norm(tensors: list[Tensor]) -> Tensor:
    """Return half the sum of x^2 over all elements of ``tensors``, in float32 at least; its gradient is x."""
    norm: Tensor = _HalfSquaredL2Norm.apply(*tensors)
    return norm


class _L1Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        if tensors[0].is_cuda:
            return _norms(tensors, 1).sum()
        dtype = _sum_dtype(tensors)  # on a CPU the multi-tensor norm is several times slower than sums of |x|
        return torch.stack([x.sum(dtype=dtype) for x in torch._foreach_abs(tensors)]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        signs = torch._foreach_sign(ctx.saved_tensors)
        torch._foreach_mul_(signs, grad)  # in place: a second set of tensors costs more than the arithmetic
        return tuple(signs)


class _HalfSquaredL2Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return _norms(tensors, 2).square().sum() / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch._foreach_mul(ctx.saved_tensors, grad))


def _norms(tensors: tuple[Tensor, ...], order: int) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors, order, dtype=_sum_dtype(tensors)))


def _sum_dtype(tensors: tuple[Tensor, ...]) -> torch.dtype:
    return torch.promote_types(torch.float32, tensors[0].dtype)
