"""Losses in the forms that PyTorch has: a function of (logits, labels), or a module with ``forward(logits, labels)``.

Both are made a ``Loss``, so they keep its promises: they never see the label ``IGNORE_INDEX``, and what they return is
one value per label. The trainer takes the mean, so ``reduction``, as PyTorch's own losses call it, is "none".
"""

import functools
import inspect
from collections.abc import Callable, Set
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from client_app.losses.base import IGNORE_INDEX, Loss, at_least_float32, check_shapes, expect

REDUCTION = "none"
"""What a function, or the constructor of a module, that has an argument ``reduction`` gets for it."""

PLAIN_TYPES = (bool, int, float, str, "bool", "int", "float", "str")  # as text where a module defers its annotations


class PlainLoss(Loss):
    """A function or module ``(logits (N, K, *D), labels (N, *D)) -> (N, *D)`` as a loss.

    Half-precision logits reach it as float32. Label distributions (N, K, *D) are passed on as they are.
    """

    def __init__(self, function: Callable[..., Any], **arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N, *D) of ``logits`` (N, K, *D); see ``Loss``.

        Raises
        ------
        ValueError
            If shapes or types do not fit, or the function returns something else than one value per label.
        """
        check_shapes(logits, target)
        logits = at_least_float32(logits)
        if isinstance(self.function, nn.Module):
            self.function.to(logits.device)  # weights of classes, for example
        if target.is_floating_point():
            return self._values(logits, target.to(logits.dtype))
        ignored = target == IGNORE_INDEX
        return self._values(logits, target.masked_fill(ignored, 0)).masked_fill(ignored, 0.0)

    def _values(self, logits: Tensor, target: Tensor) -> Tensor:
        value: Any = self.function(logits, target, **self.arguments)
        expect(isinstance(value, Tensor), f"{self} must return a tensor, got {type(value).__name__}")
        expected, got = tuple(logits.shape[:1] + logits.shape[2:]), tuple(value.shape)
        hint = ""
        if value.dim() == 0:
            hint = f"; leave out its mean or sum, or give it an argument reduction, which is set to {REDUCTION!r}"
        expect(got == expected, f"{self} must return one value per label, {expected}, got {got}{hint}")
        return value  # type: ignore[no-any-return]

    def __str__(self) -> str:
        """Return the name of the function or the module's class."""
        function = self.function.func if isinstance(self.function, functools.partial) else self.function
        return str(getattr(function, "__qualname__", type(function).__name__))


def of_module(module: nn.Module) -> PlainLoss:
    """Return a module as a loss, unreduced where it has PyTorch's attribute ``reduction``.

    Raises
    ------
    ValueError
        If it has parameters of its own: nobody would train them.
    """
    name = type(module).__name__
    learned = [parameter for parameter, _ in module.named_parameters()]
    expect(not learned, f"{name} has parameters ({', '.join(learned)}): those of a loss are not trained; use buffers")
    if isinstance(getattr(module, "reduction", None), str):
        setattr(module, "reduction", REDUCTION)  # noqa: B010 - mypy takes it for a submodule
    return PlainLoss(module)


def factory_of(found: Callable[..., Any], known: Set[str]) -> Callable[..., Any]:
    """Return what builds a loss: ``found`` itself; of a function of (logits, labels) what takes its other arguments.

    A function is of (logits, labels), whatever it calls them, if its first two arguments have no default, are not
    annotated as numbers or texts, and nobody gives them before training: ``known`` are the names that the run and the
    configuration give. Any other function builds a loss from its arguments.
    """
    if not isinstance(found, FunctionType | functools.partial):
        return found
    signature = inspect.signature(found)
    first = list(signature.parameters.values())[:2]
    if len(first) < 2 or not all(_awaits_tensor(parameter, known) for parameter in first):
        return found

    def build(**arguments: Any) -> PlainLoss:
        return PlainLoss(found, **arguments)

    build.__signature__ = signature.replace(parameters=[*signature.parameters.values()][2:])  # type: ignore[attr-defined]
    return build


def _awaits_tensor(parameter: inspect.Parameter, known: Set[str]) -> bool:
    """Tell whether an argument can only be a tensor of the training."""
    positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    is_open = parameter.default is parameter.empty and parameter.name not in known
    return positional and is_open and parameter.annotation not in PLAIN_TYPES
