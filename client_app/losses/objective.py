"""Objectives: what a client minimises, the mean of a loss plus weighted regularizers."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from client_app.losses.base import IGNORE_INDEX, ElementwiseLoss, Loss, expect
from client_app.losses.regularizers import GlobalParameters, Penalty, Regularizer, RegularizerInput, anchors
from tasks.issues import ERROR, Component, Issue, RunContext

WeightedRegularizers = tuple[tuple[float, Regularizer], ...]
"""Pairs (coefficient, regularizer)."""
WeightedPenalties = tuple[tuple[float, Penalty], ...]
"""Pairs (coefficient, penalty)."""


@dataclass(frozen=True)
class Objective(Component):
    """A loss and what is added to its mean: regularizers with their coefficients, in this order.

    ``objective.loss`` gives the loss per element.
    """

    loss: Loss
    regularizers: WeightedRegularizers = ()
    _has_closed_form: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from client_app.losses.closed_form import has_closed_form  # it knows all losses, and those need this module

        object.__setattr__(self, "_has_closed_form", has_closed_form(self.loss))  # before a compiler looks at it

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        model: nn.Module,
        global_parameters: GlobalParameters,
        weights: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar to minimise: the mean loss plus all regularizers.

        Parameters
        ----------
        logits, target
            As for ``Loss``: (N, K, *D), and (N, *D) or (N, K, *D).
        model
            The model being trained.
        global_parameters
            Parameters of the received global model by name; may be empty if no regularizer measures a distance.
        weights
            Weight of each element in the mean of the loss, (N, *D), at least 0. Regularizers do not depend on labels
            and so not on these weights. If no element counts, the mean is 0.
        inputs
            What ``logits`` were computed from, with ``requires_grad``; needed if ``needs_inputs``.

        Raises
        ------
        ValueError
            If shapes do not fit, or something that a regularizer needs is missing.
        """
        batch = RegularizerInput(
            logits=logits, valid=labelled(target), inputs=inputs, model=model, global_parameters=global_parameters
        )
        return self._total(batch, target, weights, self.regularizers)

    def data_term(
        self, logits: Tensor, target: Tensor, weights: Tensor | None = None, inputs: Tensor | None = None
    ) -> Tensor:
        """Return the same without the regularizers that look at the model; arguments and errors as above."""
        batch = RegularizerInput(logits=logits, valid=labelled(target), inputs=inputs)
        of_data = tuple((c, regularizer) for c, regularizer in self.regularizers if not regularizer.needs_model)
        return self._total(batch, target, weights, of_data)

    def with_regularizer(self, coefficient: float, regularizer: Regularizer) -> "Objective":
        """Return this objective plus ``coefficient`` x ``regularizer``; 0 changes nothing.

        Raises
        ------
        ValueError
            If the coefficient is negative or not finite.
        """
        return replace(self, regularizers=self.regularizers + weighted(coefficient, (regularizer,)))

    def for_counts(self, class_counts: Tensor) -> "Objective":
        """Return this objective for a client whose labels have changed to ``class_counts``, (K,)."""
        return replace(self, loss=self.loss.for_counts(class_counts))

    def penalties(self) -> WeightedPenalties:
        """Return the regularizers behind ``data_term`` if adding them to it afterwards is the same; else none."""
        of_data = [regularizer for _, regularizer in self.regularizers if not regularizer.needs_model]
        rest = self.regularizers[len(of_data) :]
        found = tuple((c, penalty) for c, penalty in rest if isinstance(penalty, Penalty))
        return found if len(found) == len(rest) else ()

    @property
    def needs_inputs(self) -> bool:
        """Whether the trainer must pass ``inputs`` that required a gradient during the forward pass."""
        return any(regularizer.needs_inputs for _, regularizer in self.regularizers)

    def _total(
        self, batch: RegularizerInput, target: Tensor, weights: Tensor | None, regularizers: WeightedRegularizers
    ) -> Tensor:
        from client_app.losses.closed_form import closed_mean

        total = closed_mean(batch.logits, target, self.loss) if weights is None and self._has_closed_form else None
        if total is None:
            total = weighted_mean(self.loss(batch.logits, target), batch.valid, weights)
        for coefficient, regularizer in regularizers:
            total = total + coefficient * regularizer(batch)
        return total

    def issues(self, context: RunContext) -> list[Issue]:
        """Return that the inputs cannot be differentiated by, or pixels have no labels, where either is needed."""
        name, texts = context.settings.loss.name, list[str]()
        if self.needs_inputs and not context.has_smooth_inputs:
            texts.append(f"loss {name} differentiates by inputs, and {context.words}")
        if context.settings.loss.warmup and not isinstance(self.loss, ElementwiseLoss):
            texts.append(f"loss.warmup adds cross-entropy to each element's loss, and {name} has no such thing")
        if self.loss.needs_pixels and not context.labels_pixels:
            texts.append(f"loss {name} needs a label per pixel, and the task {context.settings.task.name} has none")
        return [Issue(ERROR, "loss", text, "choose another loss") for text in texts]


class Penalties:
    """The penalties of an objective on one model, added after the backward pass: the same numbers without autograd.

    A graph over all parameters, built and walked in each step, costs several times what the arithmetic does.

    Parameters
    ----------
    terms
        The penalties with their coefficients, in the objective's order.
    model
        The model being trained.
    received
        The received global model's parameters, by name.

    Raises
    ------
    ValueError
        If a received parameter is needed and missing, or has another shape.
    """

    def __init__(self, terms: WeightedPenalties, model: nn.Module, received: GlobalParameters) -> None:
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._terms = terms
        self._parameters: list[Tensor] = list(named.values())
        self._received = anchors(named, received) if any(penalty.to_global for _, penalty in terms) else []
        self._drift = [torch.zeros_like(start) for start in self._received]
        self._slopes = [[torch.zeros_like(parameter) for parameter in self._parameters] for _ in terms]

    @torch.no_grad()
    def add(self, total: Tensor) -> Tensor:
        """Return ``total`` plus all penalties, and add their gradients to those of the parameters."""
        if self._received:
            torch._foreach_copy_(self._drift, self._parameters)
            torch._foreach_sub_(self._drift, self._received)
        for (coefficient, penalty), slopes in zip(self._terms, self._slopes, strict=True):
            tensors = self._drift if penalty.to_global else self._parameters
            total = total + coefficient * penalty.closed_form(tensors, coefficient, slopes)
        self._add_to_gradients()
        return total

    def _add_to_gradients(self) -> None:
        *others, added = self._slopes
        for slopes in reversed(others):  # the last first, and the network's gradient last: in autograd's order
            torch._foreach_add_(added, slopes)
        for parameter in self._parameters:
            if parameter.grad is None:  # the network did not use it
                parameter.grad = torch.zeros_like(parameter)
        torch._foreach_add_([parameter.grad for parameter in self._parameters if parameter.grad is not None], added)


def weighted(coefficient: float, regularizers: tuple[Regularizer, ...]) -> WeightedRegularizers:
    """Pair each regularizer with its coefficient; a coefficient of 0 leaves none.

    Raises
    ------
    ValueError
        If the coefficient is negative or not finite.
    """
    names = ", ".join(type(regularizer).__name__ for regularizer in regularizers)
    expect(0 <= coefficient < math.inf, f"the coefficient of {names} must be at least 0, got {coefficient}")
    return tuple((coefficient, regularizer) for regularizer in regularizers if coefficient > 0)


def labelled(target: Tensor) -> Tensor | None:
    """Return which elements have a label, (N, *D); None for label distributions (N, K, *D), where all have."""
    return None if target.is_floating_point() else target != IGNORE_INDEX


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
