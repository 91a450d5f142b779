"""FedAvgM: server momentum (Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution", 2019)."""

from dataclasses import dataclass, field
from math import inf

from strategies.gram import Doubles, Vector
from strategies.server_steps.base import SERVER_STEPS, ServerStep, require


@SERVER_STEPS.register("fedavgm", "Hsu, Qi, Brown, 2019")
@dataclass(eq=False)
class FedAvgM(ServerStep):
    """Momentum at the server: the step is the sum of all updates so far, each weakened by every later round.

    ``m <- server_momentum * m + update``, and the step is ``server_learning_rate * m``. A momentum of 0 with a learning
    rate of 1 is FedAvg.

    Parameters
    ----------
    server_learning_rate
        Factor of the step.
    server_momentum
        What is left of an update after one more round. With m a lasting direction is taken 1 / (1 - m) times as far.
    """

    server_learning_rate: float = 1.0
    server_momentum: float = 0.9
    momentum: Vector | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        rate, momentum = self.server_learning_rate, self.server_momentum
        require(0 < rate < inf, "server_learning_rate", rate, "positive")
        require(0 <= momentum < 1, "server_momentum", momentum, "at least 0 and below 1")

    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        """Return the accumulated update times the learning rate."""
        self.momentum = update.copy() if self.momentum is None else self.server_momentum * self.momentum + update
        return self.server_learning_rate * self.momentum
