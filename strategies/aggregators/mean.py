"""Weighted mean: FedAvg (McMahan, Moore, Ramage, Hampson, Aguera y Arcas, AISTATS 2017)."""

from strategies.aggregators.base import Reweighting
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles
from strategies.points import Points


@AGGREGATORS.register("mean", "McMahan et al., AISTATS 2017")
class Mean(Reweighting):
    """Mean of the updates, weighted by the prior.

    Breakdown: none tolerated; a single client can move the result anywhere.
    """

    robust = False

    def weights(self, gram: Doubles, prior: Doubles) -> Doubles:
        """Return the prior."""
        return prior

    def weigh(self, points: Points, prior: Doubles) -> Doubles:
        """Return the prior, without the cost of a Gram matrix."""
        return prior
