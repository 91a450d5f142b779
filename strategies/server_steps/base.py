"""What a server step is: the combined update of a round in, what is added to the global model out.

Without one the global model becomes the combination itself. A step treats the combined update as a gradient (a server
optimizer) or lengthens it. It comes after the aggregation rule, so it works behind any of them.

Shapes: N clients, P coordinates.
"""

from abc import ABC, abstractmethod
from inspect import isroutine
from typing import Any

from strategies.gram import Doubles, Vector
from tasks.issues import Component
from tasks.plugin import Registry


class ServerStep(Component, ABC):
    """A step after the rule.

    It may remember something between rounds, so every run needs a step of its own.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: all attributes but functions, unless the step says otherwise.

        What they may hold is in :mod:`server_app.strategy_state`; a step with others needs methods of its own.
        """
        return {name: value for name, value in attributes_of(self).items() if not isroutine(value)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        for name, value in state.items():
            object.__setattr__(self, name, value)  # a step without a memory may be frozen

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


SERVER_STEPS = Registry("server step", ServerStep)


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
