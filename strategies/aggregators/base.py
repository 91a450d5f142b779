"""Aggregator base classes: N client updates and their weights in, one update out; how many may be hostile.

An update is a client's model minus the global model, one float32 or float64 vector of length P. An aggregator belongs
to one of two families, and sees only what that family needs:

- :class:`Reweighting` chooses one weight per client from the inner products of the updates;
- :class:`CoordinateWise` combines the values of each coordinate on its own.

Shapes: N clients, P coordinates, B coordinates of one block. The N client weights are what a client counts before the
updates are looked at, for instance by its number of examples: nonnegative, sum 1.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from strategies.gram import Doubles, UpdateMatrix
from tasks.issues import WARNING, Component, Issue, RunContext


class Counted:
    """Something that needs a least number of updates: an aggregator or a pre-aggregator."""

    @property
    def name(self) -> str:
        """Name in the configuration: that of the class in small letters."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()

    @property
    def minimum(self) -> int:
        """Fewest updates that can be combined."""
        return 1

    def problem(self, num_updates: int, fact: str = "there are {}") -> str:
        """Return why so many updates are too few, or an empty string; ``fact`` says where the number comes from."""
        if num_updates >= self.minimum:
            return ""
        return f"{self} needs the updates of at least {self.minimum} clients, {fact.format(num_updates)}"

    def warning(self, num_updates: int) -> str:
        """Return what is odd but allowed about so many updates, or an empty string."""
        return ""

    def missing(self, clients: Collection[int]) -> str:
        """Return which client's update it cannot do without and does not get, in words, or an empty string."""
        return ""

    def __str__(self) -> str:
        """Return the name as users write it, with the number of hostile updates if there is one."""
        hostile = getattr(self, "f", None)
        return self.name if hostile is None else f"{self.name} with f = {hostile}"


@dataclass(frozen=True)
class Tolerant(Counted):
    """Base of aggregators and pre-aggregators that have to know how many of the updates may be hostile.

    Parameters
    ----------
    f
        Number of hostile updates to withstand. Left out, it is the largest number that the round's updates allow.
    """

    f: int | None = None
    per_hostile: ClassVar[int] = 2
    beside: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.f is not None and self.f < 0:
            raise ValueError(f"f = {self.f}: the number of hostile updates must be at least 0")

    @property
    def minimum(self) -> int:
        """Fewest updates among which ``f`` hostile ones can be withstood."""
        return self.per_hostile * (self.f or 0) + self.beside

    def hostile(self, num_updates: int) -> int:
        """Return the number of hostile updates to withstand among so many."""
        return (num_updates - self.beside) // self.per_hostile if self.f is None else self.f

    def warning(self, num_updates: int) -> str:
        """Return that no hostile update is withstood although f was left open, or an empty string."""
        idle = self.f is None and self.hostile(num_updates) == 0
        return f"{self} withstands no hostile update: the largest f for {num_updates} updates is 0" if idle else ""


def bounded(rule: Tolerant, num_updates: int, why: str) -> str:
    """Return that f was left open and the rule takes a smaller one than the number of updates allows, or nothing."""
    chosen, allowed = rule.hostile(num_updates), (num_updates - rule.beside) // rule.per_hostile
    if rule.f is not None or chosen >= allowed:
        return ""
    return f"{rule.name} withstands {chosen} hostile updates among {num_updates}, not {allowed}: {why}"


Combine = Callable[[slice, Doubles], Doubles]


def kept_weights(kept: npt.NDArray[np.intp], client_weights: Doubles) -> Doubles:
    """Return the client weights (N,) of the kept rows, divided by their sum; 0 for the others."""
    weights = np.zeros(len(client_weights))
    weights[kept] = client_weights[kept]
    return np.asarray(weights / weights.sum(), np.float64)


class Aggregator(Counted, Component, ABC):
    """Any aggregator. Derive your own from :class:`Reweighting` or :class:`CoordinateWise`.

    ``robust`` tells whether a minority of hostile updates cannot decide the result; the plain mean is not.
    ``needs_clients`` tells whether every row must be one client's update, so that no pre-aggregator may mix them.
    ``measures_buffers`` tells whether the update matrix must hold the clients' buffers.
    """

    robust: bool = True
    needs_clients: ClassVar[bool] = False
    measures_buffers: bool = False

    def issues(self, context: RunContext) -> list[Issue]:
        """Return that no client is called noisy, if the aggregator reads roles; then it is the mean."""
        if not self.reads_role or context.strategy.gives_roles or not context.judges_roles:
            return []
        chosen = context.settings.strategy
        text = f"the aggregator {chosen.aggregator} is the mean: the strategy {chosen.name} calls no client noisy"
        return [Issue(WARNING, "strategy.aggregator", text, "set strategy.name = 'noise-partition'")]

    @abstractmethod
    def prepare(self, matrix: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        """Return how to combine one block, ``(columns, block (N, B)) -> (B,)``, and the rows' weights if any."""


class Reweighting(Aggregator):
    """An aggregator that is a weighted mean, with weights that depend on how the updates lie to each other.

    ``shrinks`` tells that the global model itself counts as an update: the Gram matrix is then (N + 1, N + 1) and there
    are N + 1 weights, the last one for the global model.
    """

    shrinks: ClassVar[bool] = False

    @abstractmethod
    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return every client's weight.

        Parameters
        ----------
        gram
            Inner products of the updates, (N, N), relative to a common reference; see :mod:`strategies.gram`.
        client_weights
            Weights before looking at the updates, (N,): nonnegative, sum 1.

        Returns
        -------
        Doubles
            (N,), nonnegative, sum 1.
        """

    def weigh(self, matrix: UpdateMatrix, client_weights: Doubles) -> Doubles:
        """Return every row's weight from the update matrix; most aggregators need :meth:`weights` only."""
        return self.weights(matrix.gram if self.shrinks else matrix.gram[:-1, :-1], client_weights)

    def prepare(self, matrix: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the weighted sum of a block, and the weights."""
        return self.combination(self.weigh(matrix, client_weights), client_weights)

    def combination(self, chosen: Doubles, client_weights: Doubles) -> tuple[Combine, Doubles]:
        """Return the weighted sum of a block with the chosen weights, and these, once they are checked."""
        weights = np.asarray(chosen, np.float64)
        expected = len(client_weights) + self.shrinks
        if weights.shape != (expected,) or not (weights >= 0).all() or not abs(weights.sum() - 1) < 1e-6:
            raise ValueError(
                f"{type(self).__name__}.weights must return {expected} nonnegative weights with sum 1, got {weights}"
            )
        used = weights[: len(client_weights)]
        return lambda _, block: used @ block, used


class CoordinateWise(Aggregator):
    """An aggregator that combines each coordinate on its own, such as the median."""

    @abstractmethod
    def combine(self, block: Doubles, client_weights: Doubles) -> Doubles:
        """Return the combined values of some coordinates; called from several threads at once.

        Parameters
        ----------
        block
            All clients' values of B coordinates, (N, B), read-only.
        client_weights
            Weights before looking at the updates, (N,): nonnegative, sum 1.

        Returns
        -------
        Doubles
            (B,)
        """

    def prepare(self, matrix: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        """Return :meth:`combine`; no client has one weight for all coordinates."""
        return lambda _, block: self.combine(block, client_weights), None
