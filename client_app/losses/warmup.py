"""Warm-up of a loss (``loss.warmup``): cross-entropy is added in the first rounds, and fades out.

Bounded losses hardly learn from what they find hard. That protects a model that knows something from wrong labels; to a
network that starts from random weights everything is hard, and it learns slowly. Networks learn what examples have in
common first and wrong labels by heart later (early learning: Liu et al., NeurIPS 2020), so the warm-up is counted in
passes over a client's data. Ours; docs/results.md has the numbers.
"""

from dataclasses import replace

from client_app.losses.base import ElementwiseLoss, WeightedSum
from client_app.losses.label_losses import CrossEntropy
from client_app.losses.objective import Objective
from tasks.settings import Settings

FIRST_WEIGHT = 1.9
"""Weight of the cross-entropy that is added in round 1; FSANL itself has 0.1 of it."""


def warmed_up(objective: Objective, settings: Settings, server_round: int) -> Objective:
    """Return the objective as it is in a round, counted from 1: the weight of the added cross-entropy falls linearly.

    Raises
    ------
    ValueError
        If the loss is none of elements, to which cross-entropy could be added.
    """
    passes = settings.loss.warmup
    done = (server_round - 1) * settings.train.epochs * settings.federation.fraction_train  # expected, of one client
    if done >= passes:
        return objective
    if not isinstance(objective.loss, ElementwiseLoss):
        raise ValueError(f"{objective.loss} cannot be warmed up")
    return replace(objective, loss=_with_cross_entropy(objective.loss, FIRST_WEIGHT * (1 - done / passes)))


def _with_cross_entropy(loss: ElementwiseLoss, weight: float) -> WeightedSum:
    """Add cross-entropy to a loss, to its own where it has one: then it is computed once."""
    weights = dict[ElementwiseLoss, float]()
    for factor, part in (*(loss.parts if isinstance(loss, WeightedSum) else ((1.0, loss),)), (weight, CrossEntropy())):
        weights[part] = weights.get(part, 0.0) + factor
    return WeightedSum(tuple((factor, part) for part, factor in weights.items()))
