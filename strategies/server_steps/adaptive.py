"""Adaptive server optimizers (Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, ICLR 2021).

Every coordinate gets its own learning rate: it is divided by the typical size of the updates there. The combined update
takes the place of the gradient. The second moment starts at 0 and FedAdam corrects the start, both as Flower does;
Algorithm 2 of the paper starts at tau squared or more and corrects nothing.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from math import inf, sqrt

import numpy as np

from strategies.gram import Doubles, Vector
from strategies.server_steps.base import SERVER_STEPS, ServerStep, require


@SERVER_STEPS.register("fedadagrad", "Reddi et al., ICLR 2021")
@dataclass(eq=False)
class FedAdagrad(ServerStep):
    """Adagrad at the server: coordinates that moved far in all rounds together move less from now on.

    ``v <- v + update^2``, and the step is ``eta * update / (sqrt(v) + tau)``.

    Parameters
    ----------
    eta
        Server learning rate: about the size of a step in a coordinate.
    tau
        Floor of the divisor, in the units of an update. With tau and eta both large and equal this is FedAvg.
    """

    eta: float = 0.1
    tau: float = 1e-3
    sum_of_squares: Vector | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        _check_rates(self.eta, self.tau)

    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        """Return the update, each coordinate divided by the root of its sum of squares."""
        squared = np.square(update)
        self.sum_of_squares = squared if self.sum_of_squares is None else self.sum_of_squares + squared
        return np.asarray(self.eta * update / (np.sqrt(self.sum_of_squares) + self.tau))


@dataclass(eq=False)
class Moments(ServerStep):
    """What FedAdam and FedYogi share: a running mean of the updates over the root of one of their squares."""

    eta: float
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3
    rounds: int = field(default=0, init=False)
    first_moment: Vector | None = field(default=None, init=False)
    second_moment: Vector | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        _check_rates(self.eta, self.tau)
        for name, beta in (("beta_1", self.beta_1), ("beta_2", self.beta_2)):
            require(0 <= beta < 1, name, beta, "at least 0 and below 1")

    @abstractmethod
    def accumulate(self, second_moment: Vector, squared: Vector) -> Vector:
        """Return the next second moment, (P,), given the squared update (P,)."""

    def rate(self) -> float:
        """Return the learning rate of this round."""
        return self.eta

    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        """Return the first moment, each coordinate divided by the root of its second moment."""
        if self.first_moment is None or self.second_moment is None:
            self.first_moment, self.second_moment = np.zeros_like(update), np.zeros_like(update)
        self.rounds += 1
        self.first_moment = self.beta_1 * self.first_moment + (1 - self.beta_1) * update
        self.second_moment = self.accumulate(self.second_moment, np.square(update))
        return np.asarray(self.rate() * self.first_moment / (np.sqrt(self.second_moment) + self.tau))


@SERVER_STEPS.register("fedadam", "Reddi et al., ICLR 2021")
@dataclass(eq=False)
class FedAdam(Moments):
    """Adam at the server: running means of the update and of its square.

    ``m <- beta_1 m + (1 - beta_1) update``, ``v <- beta_2 v + (1 - beta_2) update^2``, and the step in round t is
    ``eta sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1)) * m / (sqrt(v) + tau)``. Flower's exponent t + 1, where Adam has
    t, makes the first steps shorter. Skipped rounds do not count.

    Parameters
    ----------
    eta
        Server learning rate: about the size of a step in a coordinate.
    beta_1
        Share of the first moment that stays for a round; 0 = no momentum.
    beta_2
        Share of the second moment that stays for a round.
    tau
        Floor of the divisor, in the units of an update. Without momentum, and with tau and eta both large and equal,
        this is FedAvg up to the correction of the start.
    """

    eta: float = 0.1

    def accumulate(self, second_moment: Vector, squared: Vector) -> Vector:
        """Return the running mean of the squares."""
        return self.beta_2 * second_moment + (1 - self.beta_2) * squared

    def rate(self) -> float:
        """Return the learning rate with both moments corrected for their start at 0."""
        power = self.rounds + 1
        return self.eta * sqrt(1 - self.beta_2**power) / (1 - self.beta_1**power)


@SERVER_STEPS.register("fedyogi", "Reddi et al., ICLR 2021")
@dataclass(eq=False)
class FedYogi(Moments):
    """Yogi at the server: Adam whose second moment changes by the newest square only, however large it was before.

    ``v <- v - (1 - beta_2) update^2 sign(v - update^2)``, and the step is ``eta * m / (sqrt(v) + tau)``.

    Parameters
    ----------
    eta
        Server learning rate: about the size of a step in a coordinate.
    beta_1
        Share of the first moment that stays for a round; 0 = no momentum.
    beta_2
        1 minus the share of the squared update by which the second moment changes.
    tau
        Floor of the divisor, in the units of an update. Without momentum, and with tau and eta both large and equal,
        this is FedAvg.
    """

    eta: float = 0.01

    def accumulate(self, second_moment: Vector, squared: Vector) -> Vector:
        """Return the second moment, moved towards the square by a share of the square."""
        return np.asarray(second_moment - (1 - self.beta_2) * squared * np.sign(second_moment - squared))


def _check_rates(eta: float, tau: float) -> None:
    require(0 < eta < inf, "eta", eta, "positive")
    require(0 < tau < inf, "tau", tau, "positive")
