"""What an aggregation rule is: N client updates and their prior weights in, one update out.

An update is a client's model minus the global model, one float32 or float64 vector of length P. A rule belongs to one
of two families, and sees only what that family needs:

- :class:`Reweighting` chooses one weight per client from the inner products of the updates;
- :class:`CoordinateWise` combines the values of each coordinate on its own.

Shapes: N clients, P coordinates, B coordinates of one block.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from strategies.aggregators.tolerance import Counted
from strategies.gram import Doubles
from strategies.points import Points
from tasks.issues import WARNING, Component, Issue, RunContext

Combine = Callable[[slice, Doubles], Doubles]


class Rule(Counted, Component, ABC):
    """Any aggregation rule. Derive your own from :class:`Reweighting` or :class:`CoordinateWise`.

    ``robust`` tells whether a minority of hostile updates cannot decide the result; the plain mean is not.
    ``needs_clients`` tells whether every point must be one client's update, so that no step may mix them before.
    """

    robust: bool = True
    needs_clients: ClassVar[bool] = False

    def issues(self, context: RunContext) -> list[Issue]:
        """Return that no client is called noisy, if the rule reads that; then it is the mean."""
        if not self.reads_role or context.strategy.gives_roles or not context.judges_roles:
            return []
        chosen = context.settings.strategy
        text = f"the rule {chosen.aggregator} is the mean: the strategy {chosen.name} calls no client noisy"
        return [Issue(WARNING, "strategy.aggregator", text, "set strategy.name = 'noise-partition'")]

    @abstractmethod
    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return how to combine one block, ``(columns, block (N, B)) -> (B,)``, and the points' weights if any."""


class Reweighting(Rule):
    """A rule that is a weighted mean, with weights that depend on how the updates lie to each other.

    ``shrinks`` tells that the global model itself is one of the points: the matrix is then (N + 1, N + 1) and there
    are N + 1 weights, the last one for the global model.
    """

    shrinks: ClassVar[bool] = False

    @abstractmethod
    def weights(self, gram: Doubles, prior: Doubles) -> Doubles:
        """Return every client's weight.

        Parameters
        ----------
        gram
            Inner products of the updates, (N, N), relative to a common reference; see :mod:`strategies.gram`.
        prior
            Weights before looking at the updates, (N,): nonnegative, sum 1.

        Returns
        -------
        Doubles
            (N,), nonnegative, sum 1.
        """

    def weigh(self, points: Points, prior: Doubles) -> Doubles:
        """Return every point's weight from the points themselves; :meth:`weights` is all that most rules need."""
        return self.weights(points.gram if self.shrinks else points.gram[:-1, :-1], prior)

    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the weighted sum of a block, and the weights."""
        weights = np.asarray(self.weigh(points, prior), np.float64)
        expected = len(prior) + self.shrinks
        if weights.shape != (expected,) or not (weights >= 0).all() or not abs(weights.sum() - 1) < 1e-6:
            raise ValueError(
                f"{type(self).__name__}.weights must return {expected} nonnegative weights with sum 1, got {weights}"
            )
        used = weights[: len(prior)]
        return lambda _, block: used @ block, used


class CoordinateWise(Rule):
    """A rule that combines each coordinate on its own, such as the median."""

    @abstractmethod
    def combine(self, block: Doubles, prior: Doubles) -> Doubles:
        """Return the combined values of some coordinates; called from several threads at once.

        Parameters
        ----------
        block
            All clients' values of B coordinates, (N, B), read-only.
        prior
            Weights before looking at the updates, (N,): nonnegative, sum 1.

        Returns
        -------
        Doubles
            (B,)
        """

    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return :meth:`combine`; no client has one weight for all coordinates."""
        return lambda _, block: self.combine(block, prior), None
