"""Regularizers: what an objective adds to the mean loss, whatever the labels are.

``L1`` and ``L2`` draw weights towards zero (ANL), ``L1ToGlobal`` and ``L2ToGlobal`` towards the received global model
(FSANL, FedProx); ``EntropyOfMean`` looks at a batch's predictions (ANL*), ``Jacobian`` at their slope in the inputs.

Those of the weights take all parameters that are trained: weights, biases, normalisation weights; what is frozen and
buffers do not count. Each is one
multi-tensor computation in both directions, not one per parameter: a GPU would spend longer starting those than the
network's step.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from client_app.losses.base import MIN_PROB, at_least_float32, expect

GlobalParameters = Mapping[str, Tensor]
"""The received global model's parameters, by the names of ``model.named_parameters()``."""

Tensors = tuple[Tensor, ...] | list[Tensor]
T = TypeVar("T")


class RegularizerInput:
    """What a regularizer may look at in one training step. Asking for what was not given raises ``ValueError``.

    What costs something is only there if a regularizer of the objective says that it ``needs_`` it.

    Parameters
    ----------
    logits
        What the model answered, (N, K, *D).
    valid
        Which elements have a label, (N, *D), bool; None if all have.
    inputs
        What the model was given, (N, ...), requiring a gradient; for regularizers with ``needs_inputs`` only.
    model
        The model being trained.
    global_parameters
        The received global model's parameters, by name.
    """

    def __init__(
        self,
        *,
        logits: Tensor | None = None,
        valid: Tensor | None = None,
        inputs: Tensor | None = None,
        model: nn.Module | None = None,
        global_parameters: GlobalParameters | None = None,
    ) -> None:
        self.valid = valid
        self._logits, self._inputs, self._model, self._received = logits, inputs, model, global_parameters
        self._probabilities: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """What the model answered, (N, K, *D)."""
        return _given(self._logits, "logits")

    @property
    def probabilities(self) -> Tensor:
        """The predicted probabilities (N, K, *D), in float32 at least; computed when first asked for."""
        if self._probabilities is None:  # not a cached property, whose lock no compiler goes through
            self._probabilities = torch.softmax(at_least_float32(self.logits), dim=1)
        return self._probabilities

    @property
    def inputs(self) -> Tensor:
        """What the model was given, (N, ...)."""
        return _given(self._inputs, "inputs")

    @property
    def model(self) -> nn.Module:
        """The model being trained."""
        return _given(self._model, "model")

    @property
    def global_parameters(self) -> GlobalParameters:
        """The received global model's parameters, by name."""
        return _given(self._received, "global_parameters")


class Regularizer(ABC):
    """A scalar that is added to the mean loss and does not depend on the labels. Subclasses are frozen dataclasses.

    Attributes
    ----------
    needs_inputs
        Whether it looks at ``inputs``: the trainer then calls ``inputs.requires_grad_()`` before the forward pass.
    needs_model
        Whether it looks at ``model``; ``Objective.data_term`` leaves it out.
    """

    needs_inputs: ClassVar[bool] = False
    needs_model: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, batch: RegularizerInput) -> Tensor:
        """Return the term of one training step, a differentiable scalar.

        Raises
        ------
        ValueError
            If something that it needs is missing or does not fit.
        """


class Penalty(Regularizer):
    """A norm of the weights, or of their distance to the received ones, whose gradient is known without autograd.

    Attributes
    ----------
    to_global
        Whether it is one of the distance.
    """

    needs_model: ClassVar[bool] = True
    to_global: ClassVar[bool] = False

    def __call__(self, batch: RegularizerInput) -> Tensor:
        """Return the norm of the trained weights, or of their distance."""
        return self.norm(drift(batch.model, batch.global_parameters) if self.to_global else trainable(batch.model))

    @abstractmethod
    def norm(self, tensors: list[Tensor]) -> Tensor:
        """Return the norm of ``tensors``, differentiable."""

    @abstractmethod
    def closed_form(self, tensors: list[Tensor], coefficient: float, slopes: list[Tensor]) -> Tensor:
        """Return the norm of ``tensors``, and write ``coefficient`` times its gradient into ``slopes``.

        Bits are those of autograd. ``slopes`` is kept from step to step: new memory of the size of a model costs more
        than the arithmetic.
        """


@dataclass(frozen=True)
class L1(Penalty):
    """Sum of |w| over all parameters, as in the ANL code (Ye et al., NeurIPS 2023); sub-gradient 0 at 0."""

    def norm(self, tensors: list[Tensor]) -> Tensor:
        """Return sum |x|."""
        return l1_norm(tensors)

    def closed_form(self, tensors: list[Tensor], coefficient: float, slopes: list[Tensor]) -> Tensor:
        """Return sum |x|, and write ``coefficient`` sign(x)."""
        torch._foreach_copy_(slopes, tensors)
        if tensors[0].is_cuda:
            value = _l1(tensors)
        else:
            torch._foreach_abs_(slopes)
            value = _sum_of_sums(slopes)
            torch._foreach_copy_(slopes, tensors)
        torch._foreach_sign_(slopes)
        torch._foreach_mul_(slopes, coefficient)
        return value


@dataclass(frozen=True)
class L2(Penalty):
    """Half the sum of w^2: a coefficient c acts like SGD's ``weight_decay = c``."""

    def norm(self, tensors: list[Tensor]) -> Tensor:
        """Return sum x^2 / 2."""
        return half_squared_l2_norm(tensors)

    def closed_form(self, tensors: list[Tensor], coefficient: float, slopes: list[Tensor]) -> Tensor:
        """Return sum x^2 / 2, and write ``coefficient`` x."""
        torch._foreach_copy_(slopes, tensors)
        torch._foreach_mul_(slopes, coefficient)
        return _half_squared_l2(tensors)


@dataclass(frozen=True)
class L1ToGlobal(L1):
    """Sum of |w - w_global|, our reading of FSANL's global L1 term; sub-gradient 0 at equality."""

    to_global: ClassVar[bool] = True


@dataclass(frozen=True)
class L2ToGlobal(L2):
    """Half the squared distance to the global model: FedProx's proximal term (Li et al., 2020) with coefficient mu."""

    to_global: ClassVar[bool] = True


@dataclass(frozen=True)
class EntropyOfMean(Regularizer):
    """ANL*'s regularizer: log K minus the entropy of the mean prediction (Ye et al., 2024), 0 when it is uniform.

    Keeps a network from forgetting classes under non-symmetric noise. Predictions and their mean are clipped to
    [1e-7, 1 - 1e-7], as in the authors' code.
    """

    def __call__(self, batch: RegularizerInput) -> Tensor:
        """Return log K + sum_k pi_k log pi_k, where pi is the mean prediction over the elements with a label."""
        clipped = batch.probabilities.clamp(MIN_PROB, 1 - MIN_PROB)
        if batch.valid is not None:
            clipped = clipped * batch.valid.unsqueeze(1)
        totals = clipped.transpose(0, 1).flatten(1).sum(1)
        # The lower bound only matters for a batch without any valid element.
        mean = (totals / totals.sum().clamp_min(MIN_PROB)).clamp(MIN_PROB, 1 - MIN_PROB)
        return math.log(len(totals)) + (mean * mean.log()).sum()


@dataclass(frozen=True)
class Jacobian(Regularizer):
    """Half the squared Frobenius norm of d logits / d inputs, averaged over the batch (Hoffman et al., 2019).

    Exact, hence deterministic: K backward passes in one batched call, no random projections.
    """

    needs_inputs: ClassVar[bool] = True

    def __call__(self, batch: RegularizerInput) -> Tensor:
        """Return sum_k |d logits_k / d inputs|^2 / 2, mean over the batch; differentiable again."""
        logits, inputs = batch.logits, batch.inputs
        expect(logits.dim() == 2, f"the Jacobian term is for logits (N, K), one per example, got {tuple(logits.shape)}")
        expect(inputs.requires_grad, "the Jacobian term needs inputs.requires_grad_() before the forward pass")
        one_hot = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
        directions = one_hot.unsqueeze(1).expand(-1, *logits.shape)
        (jacobian,) = torch.autograd.grad(logits, inputs, directions, create_graph=True, is_grads_batched=True)
        return at_least_float32(jacobian).square().sum() / (2 * len(inputs))


def _given(value: T | None, name: str) -> T:
    if value is None:
        raise ValueError(f"a regularizer of the objective needs the {name} of this step: pass {name}=...")
    return value


def trainable(model: nn.Module) -> list[Tensor]:
    """Return the parameters of a model that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def drift(model: nn.Module, received: GlobalParameters) -> list[Tensor]:
    """Return each trained parameter of ``model`` minus the received one, differentiable in the model's.

    Raises
    ------
    ValueError
        If a parameter is missing in ``received`` or has another shape there.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    start = anchors(parameters, received)
    return list(torch._foreach_sub(list(parameters.values()), start))


def anchors(parameters: Mapping[str, Tensor], received: GlobalParameters) -> list[Tensor]:
    """Return the received tensor for each of the named ``parameters``, of its type and on its device.

    Raises
    ------
    ValueError
        If one is missing in ``received`` or has another shape there.
    """
    wrong = [name for name, p in parameters.items() if name not in received or received[name].shape != p.shape]
    expect(
        not wrong,
        "the global parameters must hold every parameter of the model in its shape; "
        f"missing or different: {', '.join(wrong)}",
    )
    return [received[name].detach().to(p) for name, p in parameters.items()]


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
        return _l1(tensors)

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
        return _half_squared_l2(tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch._foreach_mul(ctx.saved_tensors, grad))


def _l1(tensors: Tensors) -> Tensor:
    if tensors[0].is_cuda:
        return _norms(tensors, 1).sum()
    # On a CPU the multi-tensor norm is several times slower than sums of |x|.
    return _sum_of_sums(torch._foreach_abs(tensors))


def _sum_of_sums(tensors: Tensors) -> Tensor:
    dtype = _sum_dtype(tensors)
    return torch.stack([x.sum(dtype=dtype) for x in tensors]).sum()


def _half_squared_l2(tensors: Tensors) -> Tensor:
    return _norms(tensors, 2).square().sum() / 2


def _norms(tensors: Tensors, order: int) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors, order, dtype=_sum_dtype(tensors)))


def _sum_dtype(tensors: Tensors) -> torch.dtype:
    return torch.promote_types(torch.float32, tensors[0].dtype)
