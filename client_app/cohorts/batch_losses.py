"""Joint batch loss: what several clients minimise in one step, each on its own batch.

A batch loss that knows how names its joint form by :func:`joins`; clients with any other are trained one by one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from client_app.cohorts.networks import StackedModel
from client_app.losses.joint import JointObjective, NotJointError
from client_app.trainer import BatchLoss, GivenLabels


@dataclass(frozen=True)
class JointBatch:
    """A batch of each of C clients, as long as the longest, B: shorter ones repeat an example that does not count.

    Attributes
    ----------
    indices
        For each client which of its own examples these are, without the repeated ones, (b,).
    labels
        (C, B, *D).
    share
        1 for an example, 0 for a repeated one, (C, B), float32.
    sizes
        b of each client as a tensor (C,), float32.
    """

    indices: Sequence[Tensor]
    labels: Tensor
    share: Tensor
    sizes: Tensor


class JointLoss(ABC):
    """What C clients minimise together, made of their batch losses; those keep what they learn.

    Raises
    ------
    NotJointError
        When it is made, if these batch losses cannot be computed together.
    """

    @abstractmethod
    def __init__(self, batch_losses: Sequence[Any]) -> None:
        """Take the batch losses of the clients, in their order."""

    def transform_inputs(self, batch: JointBatch, inputs: Tensor) -> Tensor:
        """Return what the models are given in place of ``inputs`` (C, B, ...)."""
        return inputs

    @abstractmethod
    def __call__(self, model: StackedModel, batch: JointBatch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return what each client minimises, (C,), given ``logits`` (C, B, K, *D), float32."""


J = TypeVar("J", bound=type[JointLoss])
JOINT: dict[type[BatchLoss], type[JointLoss]] = {}
"""For each kind of batch loss its joint form; subclasses may do something else, so theirs is not inherited."""


def joins(kind: type[BatchLoss]) -> Callable[[J], J]:
    """Register the decorated class as the joint form of a kind of batch loss."""

    def register(joint: J) -> J:
        JOINT[kind] = joint
        return joint

    return register


def joint_loss(batch_losses: Sequence[BatchLoss]) -> JointLoss:
    """Return the joint form of batch losses of one kind.

    Raises
    ------
    NotJointError
        If there is none.
    """
    kind = type(batch_losses[0])
    if kind not in JOINT:
        raise NotJointError(f"{kind.__name__} looks at one client's batch at a time")
    if batch_losses[0].needs_inputs:
        raise NotJointError("the objective differentiates by the inputs")
    return JOINT[kind](batch_losses)


@joins(GivenLabels)
class JointGivenLabels(JointLoss):
    """The objectives on the labels as they were given."""

    def __init__(self, batch_losses: Sequence[GivenLabels]) -> None:
        self._objective = JointObjective([one.objective for one in batch_losses])

    def __call__(self, model: StackedModel, batch: JointBatch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the objectives; see :class:`JointLoss`."""
        return self.objectives(model, batch, logits, batch.labels)

    def objectives(self, model: StackedModel, batch: JointBatch, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the objectives (C,) on any labels (C, B, *D)."""
        return self._objective(logits, labels, batch.share, model.parameters, model.start)


def rows_of_each(places: Tensor) -> Tensor:
    """Return ``places`` (C, B) within each client's batch as places in all batches, one after the other."""
    count, size = places.shape
    return places + size * torch.arange(count, device=places.device)[:, None]
