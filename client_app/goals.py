"""What local training minimises, batch by batch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from client_app.losses import GlobalParameters, Objective


@dataclass(frozen=True)
class Batch:
    """Some of a client's examples: their ``indices`` (B,), raw ``features`` (B, ...) and given ``labels`` (B,)."""

    indices: Tensor
    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.indices)


class Goal(ABC):
    """What an epoch loop works towards; subclass it for a method whose loss depends on which example it sees."""

    needs_inputs: bool = False
    """Whether ``inputs`` must require a gradient during the forward pass."""

    def shown(self, batch: Batch, inputs: Tensor) -> Tensor:
        """Return what the model is given in place of ``inputs`` (B, ...), float32; the default changes nothing."""
        return inputs

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the scalar to minimise on one batch.

        Parameters
        ----------
        model
            The model being trained.
        batch
            The examples.
        inputs
            What the model was given, float32, (B, ...).
        logits
            What it answered, float32, (B, K).
        """

    def end_epoch(self) -> None:
        """Do what is due between two epochs; the default does nothing."""
        return


class GivenLabels(Goal):
    """Minimise an objective on the labels as they were given.

    ``anchor`` holds the received global parameters by name, for the regularizers that measure a distance to them.
    """

    def __init__(self, objective: Objective, anchor: GlobalParameters) -> None:
        self._objective = objective
        self._anchor = anchor
        self.needs_inputs = objective.needs_inputs

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the objective; see :class:`Goal`."""
        return self._objective(logits, batch.labels, model, self._anchor, inputs=inputs)
