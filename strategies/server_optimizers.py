"""Server optimizers: the combined update of a round in, what is added to the global model out.

Without one the global model becomes the combination itself. A server optimizer treats the combined update as a gradient
or lengthens it. It comes after the aggregator, so it works behind any of them.

FedAvgM is server momentum (Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution", 2019).
FedAdagrad, FedAdam and FedYogi (Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, ICLR 2021) give every
coordinate its own learning rate: it is divided by the typical size of the updates there. The second moment starts at 0
and FedAdam corrects the start, both as Flower does; Algorithm 2 of the paper starts at tau squared or more and corrects
nothing. FedExP is extrapolation (Jhunjhunwala, Wang, Joshi, ICLR 2023). Soft thresholding is the proximal step of an L1
penalty (Donoho, IEEE Transactions on Information Theory 1995), here of the round's update.

Shapes: N clients, P coordinates.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from inspect import isroutine
from math import inf, sqrt
from typing import Any

import numpy as np

from strategies.gram import Doubles, Vector
from tasks.issues import Component
from tasks.plugins import PluginError, Registry

NO_SERVER_OPTIMIZER = "none"


class ServerOptimizer(Component, ABC):
    """Turns the combined update of a round into what is added to the global model.

    It may remember something between rounds, so every run needs one of its own.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: all attributes but functions, unless a class says otherwise.

        What they may hold is in :mod:`server_app.storage.strategy_state`; others need methods of their own.
        """
        return {name: value for name, value in attributes_of(self).items() if not isroutine(value)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        for name, value in state.items():
            object.__setattr__(self, name, value)  # one without a memory may be frozen

    @abstractmethod
    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        """Return what is added to the global model, (P,); called once in every round that is not skipped.

        Parameters
        ----------
        update
            The combined update, (P,): aggregated model minus global model. It must be left as it is.
        squared_norms
            Squared Euclidean norms of the clients' updates, (N,).
        weights
            Weights of the clients in the combined update, (N,), or None where a client has no single weight.
        robust
            Whether clients may be hostile, as behind a robust aggregator: no single one may then decide the step.

        Returns
        -------
        Vector
            (P,), in the precision of ``update``.
        """


SERVER_OPTIMIZERS = Registry("server optimizer", ServerOptimizer)


def attributes_of(thing: object) -> dict[str, Any]:
    """Return all attributes of an object by name, those in slots too."""
    slots = [name for kind in type(thing).__mro__ for name in vars(kind).get("__slots__", ()) if hasattr(thing, name)]
    return {**vars(thing), **{name: getattr(thing, name) for name in slots if not name.startswith("__")}}


def require(holds: bool, name: str, value: float, expected: str) -> None:
    """Refuse a parameter that is out of range.

    Raises
    ------
    ValueError
        If the condition does not hold.
    """
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")


@SERVER_OPTIMIZERS.register("fedavgm", "Hsu, Qi, Brown, 2019", "https://arxiv.org/abs/1909.06335")
@dataclass(eq=False)
class FedAvgM(ServerOptimizer):
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


@SERVER_OPTIMIZERS.register("fedadagrad", "Reddi et al., ICLR 2021", "https://arxiv.org/abs/2003.00295")
@dataclass(eq=False)
class FedAdagrad(ServerOptimizer):
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
class Moments(ServerOptimizer):
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


@SERVER_OPTIMIZERS.register("fedadam", "Reddi et al., ICLR 2021", "https://arxiv.org/abs/2003.00295")
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


@SERVER_OPTIMIZERS.register("fedyogi", "Reddi et al., ICLR 2021", "https://arxiv.org/abs/2003.00295")
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


@SERVER_OPTIMIZERS.register("fedexp", "Jhunjhunwala, Wang, Joshi, ICLR 2023", "https://arxiv.org/abs/2301.09604")
@dataclass(eq=False)
class FedExP(ServerOptimizer):
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


@SERVER_OPTIMIZERS.register(
    "soft-threshold", "Donoho, IEEE Trans. Information Theory 1995", "https://doi.org/10.1109/18.382009"
)
@dataclass(eq=False)
class SoftThreshold(ServerOptimizer):
    """The combined update, each coordinate shorter by the threshold, and 0 where it is no longer than that.

    ``sign(u) max(|u| - threshold, 0)``: the minimiser of ``|s - u|^2 / 2 + threshold |s|_1`` over the steps s, so an L1
    penalty on how far the global model moves in a round. One reading of FSANL's global L1 term. 0 is plain averaging.

    Parameters
    ----------
    threshold
        Weight of the L1 norm, in the units of an update.
    """

    threshold: float = 1e-4

    def __post_init__(self) -> None:
        require(0 <= self.threshold < inf, "threshold", self.threshold, "at least 0")

    def apply(self, update: Vector, squared_norms: Doubles, weights: Doubles | None, robust: bool) -> Vector:
        """Return the shortened update."""
        return np.asarray(update - np.clip(update, -self.threshold, self.threshold))


def build_server_optimizer(name: str, args: str = "") -> ServerOptimizer | None:
    """Build a server optimizer; ``none`` is None: the result of the aggregator is added as it is.

    Raises
    ------
    PluginError
        If the name is unknown or an argument does not fit.
    """
    if name != NO_SERVER_OPTIMIZER:
        return SERVER_OPTIMIZERS.build(name, args)
    if args:
        raise PluginError(
            f"strategy.server-optimizer-args = {args!r}, but strategy.server-optimizer = 'none' takes no arguments"
        )
    return None


__all__ = [
    "NO_SERVER_OPTIMIZER",
    "SERVER_OPTIMIZERS",
    "FedAdagrad",
    "FedAdam",
    "FedAvgM",
    "FedExP",
    "FedYogi",
    "ServerOptimizer",
    "SoftThreshold",
    "build_server_optimizer",
]
