"""FedExP: extrapolation at the server (Jhunjhunwala, Wang, Joshi, ICLR 2023)."""

from dataclasses import dataclass
from math import inf

import numpy as np

from strategies.gram import Doubles, Vector
from strategies.server_steps.base import SERVER_STEPS, ServerStep, require


@SERVER_STEPS.register("fedexp", "Jhunjhunwala, Wang, Joshi, ICLR 2023")
@dataclass(eq=False)
class FedExP(ServerStep):
    """The combined update, made longer where the clients' updates cancel each other.

    The factor is ``max(1, S / (2 (|update|^2 + epsilon)))``, with S the mean of the clients' squared norms, weighted as
    their updates are: 1 for equal updates, up to N / 2 for N orthogonal ones. Where clients may be hostile, or have no
    single weight, S is the median of the squared norms: in a mean one huge update would set the step by itself.

    The paper reports the average of the last two models, because its models oscillate; that is not done here.

    Parameters
    ----------
    epsilon
        Added to the squared norm of the combined update, in the same units; a larger one means shorter steps.
    """

    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        require(0 < self.epsilon < inf, "epsilon", self.epsilon, "positive")

    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        """Return the update times the factor."""
        if weights is None or robust:
            typical = float(np.median(squared_norms))
        else:
            typical = float(np.average(squared_norms, weights=weights))
        squared = float(np.einsum("p,p->", update, update, dtype=np.float64))
        return max(1.0, typical / (2 * (squared + self.epsilon))) * update
