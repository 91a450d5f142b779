"""A server optimizer of your own: the global model never moves further than a typical client did.

A server optimizer gets what the aggregator made of the updates. Run from the repository root:

    winnow run strategy.server-optimizer=examples.capped_step:CappedStep strategy.server-optimizer-args='factor = 0.5'
"""

from dataclasses import dataclass

import numpy as np

from strategies import Doubles, ServerOptimizer, Vector


@dataclass(frozen=True)
class CappedStep(ServerOptimizer):
    """Shorten the combined update to at most ``factor`` times the median length of the clients' updates."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ValueError(f"factor = {self.factor}: must be above 0")

    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        """Return what is added to the global model, (P,)."""
        limit = self.factor * float(np.sqrt(np.median(squared_norms)))
        length = float(np.linalg.norm(update))
        return update if length <= limit else (limit / length * update).astype(update.dtype)
