"""Losses for noisy labels, what they have in common: a value for every labelled element of a batch, never reduced.

Shapes: N examples, K classes (always dimension 1), *D any further dimensions (none for images and texts, height and
width for segmentation). Reduction, masks and weights belong to the ``Objective`` and to the trainer.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

IGNORE_INDEX = -100
"""The target that means "no label here" (padding, unlabelled pixels): loss and gradient are zero."""

MIN_PROB = 1e-7
"""Probabilities below this are clipped by GCE, RCE, NNCE, NNFL and the entropy term, as in the authors' code."""

LOG_MIN_PROB = math.log(MIN_PROB)


class Loss(ABC):
    """A loss per labelled element. Subclasses are frozen dataclasses whose fields are the loss's parameters.

    Most losses are an ``ElementwiseLoss``; only one that couples the elements of an example, such as ``TLoss``,
    implements ``__call__`` itself.

    Attributes
    ----------
    needs_pixels
        Whether it is a loss of images whose pixels are labelled, and of nothing else.
    parameter_rate
        Learning rate (Adam) of the loss's own :meth:`parameters`.
    """

    needs_pixels: ClassVar[bool] = False
    parameter_rate: ClassVar[float] = 0.0

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Return what the loss learns itself, by name; the default learns nothing.

        It is learned beside the model and kept in the client's own state from round to round: it describes the labels
        of one client, so it is neither sent nor averaged.
        """
        return {}

    def for_counts(self, class_counts: Tensor) -> Self:
        """Return the loss for a client whose labels have changed to ``class_counts`` (K,); most do not look at them."""
        return self

    @abstractmethod
    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N, *D) of ``logits`` (N, K, *D).

        Parameters
        ----------
        logits
            Unnormalised scores of any floating type. In half precision the loss is computed and returned in float32.
        target
            Class indices (N, *D), int64, ``IGNORE_INDEX`` where there is no label; or label distributions (N, K, *D),
            floating, where the loss has a formula for them. That indices are below K is the data's duty: checking it
            here would make a GPU wait at every step.

        Raises
        ------
        ValueError
            If shapes or types do not fit, or the loss has no formula for label distributions.
        """


class ElementwiseLoss(Loss):
    """A loss whose elements do not see each other: subclasses write one ``formula``."""

    @abstractmethod
    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N, *D) from log-probabilities (N, K, *D); no index is ``IGNORE_INDEX`` any more."""

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N, *D); see ``Loss``."""
        check_shapes(logits, target)
        log_probs = log_probabilities(logits)
        if target.is_floating_point():
            return self.formula(log_probs, target.to(log_probs.dtype))
        ignored = target == IGNORE_INDEX
        return self.formula(log_probs, target.masked_fill(ignored, 0)).masked_fill(ignored, 0.0)

    def joined(self, losses: "Sequence[ElementwiseLoss]", rows: int) -> "ElementwiseLoss | None":
        """Return one loss for the elements of several clients, ``rows`` of each in turn, given their losses.

        The default knows one only where all of them are equal; None = there is none.
        """
        return self if all(loss == self for loss in losses) else None

    def per_label(self, log_probs: Tensor) -> Tensor:
        """Return what the loss would be for each of the K possible labels, (N, K, *D)."""
        first = torch.zeros_like(log_probs[:, 0], dtype=torch.int64)
        return torch.stack([self.formula(log_probs, first + label) for label in range(log_probs.shape[1])], dim=1)


class LabelLoss(ElementwiseLoss):
    """A loss that depends on the label's own probability only: subclasses write one ``value``."""

    linear: ClassVar[bool] = False
    """Whether the loss of a label distribution is defined as the expectation over its labels."""

    @abstractmethod
    def value(self, log_p: Tensor) -> Tensor:
        """Return the loss of a label with log-probability ``log_p``, element by element."""

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N, *D) of the given labels."""
        if not target.is_floating_point():
            return self.value(log_probs.gather(1, target.unsqueeze(1)).squeeze(1))
        expect(
            self.linear,
            f"{type(self).__name__} is defined for one label per element: expected class indices (int64), "
            f"got label distributions {tuple(target.shape)}; pass target.argmax(1) or choose ce",
        )
        return (target * self.value(log_probs)).sum(1)

    def per_label(self, log_probs: Tensor) -> Tensor:
        """Return what the loss would be for each of the K possible labels, (N, K, *D)."""
        return self.value(log_probs)


@dataclass(frozen=True)
class WeightedSum(ElementwiseLoss):
    """A weighted sum of losses over one common log-softmax, such as alpha x active + beta x passive.

    ``parts`` are pairs (weight, loss); a part of weight 0 costs nothing. Weights lambda and 1 - lambda give a convex
    mixture.
    """

    parts: tuple[tuple[float, ElementwiseLoss], ...]

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.parts]
        expect(
            all(0 <= weight < math.inf for weight in weights) and any(weight > 0 for weight in weights),
            f"the weights of a sum of losses must be at least 0 and not all 0, got {weights}",
        )

    def for_counts(self, class_counts: Tensor) -> Self:
        """Return the sum of the parts for other labels; see ``Loss``."""
        return replace(self, parts=tuple((weight, loss.for_counts(class_counts)) for weight, loss in self.parts))

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the weighted sum of the parts, (N, *D)."""
        terms = [weight * loss.formula(log_probs, target) for weight, loss in self.parts if weight > 0]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total


def check_shapes(logits: Tensor, target: Tensor) -> None:
    """Check that ``target`` labels ``logits``, as indices or as distributions.

    Raises
    ------
    ValueError
        If it does not; the message says what would.
    """
    expect(
        logits.is_floating_point() and logits.dim() >= 2 and logits.shape[1] >= 2,
        f"logits must be floating, of shape (N, K, *D) with K >= 2 classes, got {logits.dtype} {tuple(logits.shape)}",
    )
    indices = logits.shape[:1] + logits.shape[2:]
    if target.is_floating_point():
        expect(
            target.shape == logits.shape,
            f"a floating target must be label distributions of the logits' shape {tuple(logits.shape)}, "
            f"got {tuple(target.shape)}; class indices must be int64",
        )
    else:
        expect(
            target.dtype == torch.int64 and target.shape == indices,
            f"for logits {tuple(logits.shape)} the target must be int64 class indices {tuple(indices)}, "
            f"got {target.dtype} {tuple(target.shape)}; use .long(), and squeeze a dimension of size 1",
        )


def log_probabilities(logits: Tensor) -> Tensor:
    """Return the log-softmax over the classes, in float32 at least."""
    return torch.log_softmax(at_least_float32(logits), dim=1)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return half-precision tensors as float32, others unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def expect(condition: bool, message: str) -> None:
    """Raise ``ValueError`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)
