"""An attack of your own: hostile clients send updates of honest length that lead nowhere. In simulations only.

What is given is the honest update; what is returned is sent. Run from the repository root:

    winnow run attack.name=examples.random_direction:RandomDirection attack.share=0.3 strategy.aggregator=median
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from client_app.attacks import FederationFacts, UpdateAttack


@dataclass(frozen=True)
class RandomDirection(UpdateAttack):
    """Send a random direction with ``scale`` times the length of the honest update.

    With scale = 1 no check of lengths can find it; in many dimensions it is at right angles to all others.
    """

    scale: float = 1.0

    def forge(self, update: Tensor, facts: FederationFacts, draws: np.random.Generator) -> Tensor:
        """Return what to send in place of the honest ``update``, (P,)."""
        direction = torch.from_numpy(draws.standard_normal(len(update))).to(update)
        length = self.scale * float(update.norm() / direction.norm())
        return length * direction
