"""Warm-up of a loss (``loss.warmup``): cross-entropy is added in the first rounds, and fades out.

Bounded losses hardly learn from what they find hard. That protects a model that knows something from wrong labels; to a
network that starts from random weights everything is hard, and it learns slowly. Ours; docs/results.md has the numbers.
"""

from dataclasses import replace

from client_app.losses.base import ElementwiseLoss, WeightedSum, expect
from client_app.losses.label_losses import CrossEntropy
from client_app.losses.objective import Objective
from tasks.settings import AUTO, OFF, Settings

WARMED = "fsanl"
"""The loss that is warmed up where nobody says otherwise."""
SHARE = 0.3
"""Share of the rounds that this takes."""
FIRST_WEIGHT = 1.9
"""Weight of the cross-entropy that is added in round 1."""


def warmup_share(settings: Settings) -> float:
    """Return the share of the run's rounds in which cross-entropy is added, 0 = none.

    With ``loss.warmup = "auto"`` networks that start from what they know, the features of an encoder or given weights,
    have none, and no loss but FSANL with its own parameters.
    """
    chosen, loss = settings.loss.warmup, settings.loss
    if chosen != AUTO:
        return 0.0 if chosen == OFF else float(chosen)
    knows_something = settings.task.encoder or settings.model.init
    return SHARE if loss.name == WARMED and not loss.preset and not knows_something else 0.0


def warmed_up(objective: Objective, settings: Settings, server_round: int) -> Objective:
    """Return the objective as it is in a round, counted from 1: the weight of the added cross-entropy falls linearly.

    Raises
    ------
    ValueError
        If the loss is none of elements, to which cross-entropy could be added.
    """
    share, progress = warmup_share(settings), (server_round - 1) / settings.num_server_rounds
    if progress >= share:
        return objective
    loss = objective.loss
    expect(isinstance(loss, ElementwiseLoss), f"{loss} cannot be warmed up")
    return replace(objective, loss=_with_cross_entropy(loss, FIRST_WEIGHT * (1 - progress / share)))


def _with_cross_entropy(loss: ElementwiseLoss, weight: float) -> WeightedSum:
    """Add cross-entropy to a loss, to its own where it has one: then it is computed once."""
    weights = dict[ElementwiseLoss, float]()
    for factor, part in (*(loss.parts if isinstance(loss, WeightedSum) else ((1.0, loss),)), (weight, CrossEntropy())):
        weights[part] = weights.get(part, 0.0) + factor
    return WeightedSum(tuple((factor, part) for part, factor in weights.items()))
