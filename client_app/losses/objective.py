"""What a client minimises: one loss per element, penalties on the weights, terms of the batch."""

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from client_app.losses.base import IGNORE_INDEX, Loss, at_least_float32, expect
from client_app.losses.batch_terms import BatchTerm, InputTerm
from client_app.losses.penalties import Anchor, Penalty
from tasks.issues import ERROR, Component, Issue, RunContext

T = TypeVar("T")


@dataclass(frozen=True)
class Objective(Component):
    """A loss and what is added to its mean: pairs (coefficient, term) of penalties, batch terms and input terms.

    ``objective.loss`` gives the loss per element.
    """

    loss: Loss
    penalties: tuple[tuple[float, Penalty], ...] = ()
    batch_terms: tuple[tuple[float, BatchTerm], ...] = ()
    input_terms: tuple[tuple[float, InputTerm], ...] = ()

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        model: nn.Module,
        anchor: Anchor,
        weights: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar to minimise: ``data_term`` plus the penalties.

        Parameters
        ----------
        logits, target
            As for ``Loss``: (N, K, *D), and (N, *D) or (N, K, *D).
        model
            The model being trained; its parameters are what the penalties see.
        anchor
            Parameters of the received global model by name; may be empty if no penalty measures a distance.
        weights, inputs
            As for ``data_term``.

        Raises
        ------
        ValueError
            If shapes do not fit, or something that a term needs is missing.
        """
        total = self.data_term(logits, target, weights, inputs)
        for coefficient, penalty in self.penalties:
            total = total + coefficient * penalty(model, anchor)
        return total

    def data_term(
        self, logits: Tensor, target: Tensor, weights: Tensor | None = None, inputs: Tensor | None = None
    ) -> Tensor:
        """Return the mean loss plus batch and input terms, without the penalties.

        Parameters
        ----------
        logits, target
            As for ``Loss``.
        weights
            Weight of each element in the mean of the loss, (N, *D), at least 0. Batch and input terms do not depend
            on labels and so not on these weights. If no element counts, the mean is 0.
        inputs
            What ``logits`` were computed from, with ``requires_grad``; needed if ``needs_inputs``.

        Raises
        ------
        ValueError
            If shapes do not fit, or ``inputs`` is needed and missing.
        """
        valid = None if target.is_floating_point() else target != IGNORE_INDEX
        total = weighted_mean(self.loss(logits, target), valid, weights)
        if self.batch_terms:
            probabilities = torch.softmax(at_least_float32(logits), dim=1)
            for coefficient, batch_term in self.batch_terms:
                total = total + coefficient * batch_term(probabilities, valid)
        for coefficient, input_term in self.input_terms:
            total = total + coefficient * input_term(logits, given(inputs, input_term))
        return total

    def with_penalty(self, coefficient: float, penalty: Penalty) -> "Objective":
        """Return this objective plus ``coefficient`` x ``penalty``; 0 changes nothing.

        Raises
        ------
        ValueError
            If the coefficient is negative.
        """
        return replace(self, penalties=self.penalties + weighted(coefficient, (penalty,)))

    @property
    def needs_inputs(self) -> bool:
        """Whether the trainer must pass ``inputs`` that required a gradient during the forward pass."""
        return bool(self.input_terms)

    def issues(self, context: RunContext) -> list[Issue]:
        """Return that the task's inputs cannot be differentiated by, if they must be."""
        if context.has_smooth_inputs or not self.needs_inputs:
            return []
        text = f"loss {context.settings.loss.name} differentiates by inputs, and {context.words}"
        return [Issue(ERROR, "loss", text, "choose another loss")]


def weighted(coefficient: float, terms: tuple[T, ...]) -> tuple[tuple[float, T], ...]:
    """Pair each term with its coefficient; a coefficient of 0 leaves no terms.

    Raises
    ------
    ValueError
        If the coefficient is negative or not finite.
    """
    names = ", ".join(type(term).__name__ for term in terms)
    expect(0 <= coefficient < math.inf, f"the coefficient of {names} must be at least 0, got {coefficient}")
    return tuple((coefficient, term) for term in terms if coefficient > 0)


def weighted_mean(losses: Tensor, valid: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Return the mean of ``losses`` over valid elements, weighted; 0 if nothing counts.

    All three have one shape; ``valid`` is bool, ``weights`` are at least 0.

    Raises
    ------
    ValueError
        If ``weights`` has another shape.
    """
    share = torch.ones_like(losses) if valid is None else valid.to(losses.dtype)
    if weights is not None:
        expect(
            weights.shape == losses.shape,
            f"weights must have the shape of the losses {tuple(losses.shape)}, got {tuple(weights.shape)}",
        )
        share = share * weights
    return (losses * share).sum() / share.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def given(inputs: Tensor | None, term: InputTerm) -> Tensor:
    """Return ``inputs``, which ``term`` cannot do without.

    Raises
    ------
    ValueError
        If there are none.
    """
    if inputs is None:
        raise ValueError(f"the term {type(term).__name__} needs the inputs of the model: pass inputs=...")
    return inputs
