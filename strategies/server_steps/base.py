"""What a server step is: the combined update of a round in, what is added to the global model out.

Without one the global model becomes the combination itself. A step treats the combined update as a gradient (a server
optimizer) or lengthens it. It comes after the aggregation rule, so it works behind any of them.

Shapes: N clients, P coordinates.
"""

from abc import ABC, abstractmethod

from strategies.gram import Doubles, Vector
from tasks.issues import Component


class ServerStep(Component, ABC):
    """A step after the rule.

    Whatever it remembers between rounds is an attribute that holds a number, an array or, before the first round, None;
    a checkpoint saves those. So every run needs a step of its own.
    """

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
            Whether clients may be hostile, as behind a robust rule: no single one may then decide the step.

        Returns
        -------
        Vector
            (P,), in the precision of ``update``.
        """


def require(holds: bool, name: str, value: float, expected: str) -> None:
    """Refuse a parameter that is out of range.

    Raises
    ------
    ValueError
        If the condition does not hold.
    """
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")
