"""Prediction history: the last answers of the model to each of a client's examples, kept from round to round.

It holds the last ``length`` answers and no more: class indices for SELFIE, probabilities for Joint Optimization. As
arrays of a client's state it outlives the round, and a restart where the node has a folder for its state.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from client_app.methods.base import State

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class History:
    """The last answers to n examples.

    Attributes
    ----------
    values
        (n, length, *D); a slot that was never written is 0 and does not count.
    seen
        How many answers to each example were ever recorded, (n,), int64.
    """

    values: Tensor
    seen: Tensor

    @classmethod
    def empty(cls, count: int, length: int, like: Tensor) -> "History":
        """Return a history of ``count`` examples without answers, of the shape, type and device of ``like`` (*D)."""
        values = like.new_zeros(count, length, *like.shape)
        return cls(values, torch.zeros(count, dtype=torch.int64, device=like.device))

    @classmethod
    def restore(cls, state: State, name: str, count: int, length: int, like: Tensor) -> "History":
        """Return the history that :meth:`arrays` kept in a state, or an empty one; one that does not fit is dropped."""
        if name not in state:
            return cls.empty(count, length, like)
        kept, wanted = state[name], (count, length, *like.shape)
        if kept.shape != wanted or f"{name}-seen" not in state:
            logger.warning(
                "The client's history of predictions starts anew: it is %s, and needed %s", kept.shape, wanted
            )
            return cls.empty(count, length, like)
        values = torch.tensor(kept, dtype=like.dtype, device=like.device)
        return cls(values, torch.tensor(state[f"{name}-seen"], dtype=torch.int64, device=like.device))

    def record(self, indices: Tensor, answers: Tensor) -> None:
        """Add one answer (B, *D) to each of the examples ``indices`` (B,), which are all different."""
        self.values[indices, self.seen[indices] % self.values.shape[1]] = answers.detach().to(self.values.dtype)
        self.seen[indices] += 1

    def filled(self, indices: Tensor) -> Tensor:
        """Return how many answers to each of these examples are kept, (B,)."""
        return self.seen[indices].clamp_max(self.values.shape[1])

    def mean(self, indices: Tensor) -> Tensor:
        """Return the mean of the kept answers to each of these examples, (B, *D); 0 where there is none."""
        counts = self.filled(indices).clamp_min(1)
        return self.values[indices].sum(1) / counts.view(-1, *[1] * (self.values.dim() - 2))

    def frequencies(self, indices: Tensor, num_classes: int) -> Tensor:
        """Return the share of each class among the kept answers, which are class indices, (B, K); 0 without answers."""
        slots = torch.arange(self.values.shape[1], device=self.seen.device)
        filled = self.filled(indices)
        counts = torch.zeros(len(indices), num_classes, device=self.seen.device)
        counts.scatter_add_(1, self.values[indices].long(), (slots < filled[:, None]).to(counts.dtype))
        return counts / filled.clamp_min(1)[:, None]

    def arrays(self, name: str) -> State:
        """Return the history as arrays of a client's state, under ``name``."""
        return {name: self.values.cpu().numpy(), f"{name}-seen": self.seen.cpu().numpy()}
