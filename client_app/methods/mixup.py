"""Mixup (Zhang, Cisse, Dauphin, Lopez-Paz, ICLR 2018): train between two examples instead of on each."""

import numpy as np
import torch
from torch import Tensor, nn

from client_app.goals import Batch, GivenLabels
from client_app.losses import GlobalParameters, Objective


class Mixup(GivenLabels):
    """Show share x one example + (1 - share) x another of the batch; the loss is mixed likewise.

    A batch has one share, max(s, 1 - s) with s from Beta(alpha, alpha), and partners by a random permutation;
    alpha = 0 leaves every example as it is, which is also the limit of small alpha.
    """

    def __init__(
        self, objective: Objective, anchor: GlobalParameters, alpha: float, draws: np.random.Generator
    ) -> None:
        super().__init__(objective, anchor)
        self._alpha = alpha
        self._draws = draws
        self._share = 1.0
        self._partners = torch.zeros(0, dtype=torch.int64)

    def shown(self, batch: Batch, inputs: Tensor) -> Tensor:
        """Return the mixed inputs; see :class:`Goal`."""
        if not self._alpha:
            return inputs
        drawn = self._draws.beta(self._alpha, self._alpha)
        self._share = max(drawn, 1 - drawn)
        self._partners = torch.from_numpy(self._draws.permutation(len(batch))).to(inputs.device)
        return self._share * inputs + (1 - self._share) * inputs[self._partners]

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return share x the objective on the own labels + (1 - share) x that on the partners'; see :class:`Goal`."""
        own = super().loss(model, batch, inputs, logits)
        if self._share == 1:
            return own
        theirs = Batch(batch.indices, batch.features, batch.labels[self._partners])
        return self._share * own + (1 - self._share) * super().loss(model, theirs, inputs, logits)
