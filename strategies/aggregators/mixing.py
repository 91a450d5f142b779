"""Steps before a rule: nearest-neighbour mixing, bucketing, norm clipping."""

import math
from dataclasses import dataclass

import numpy as np

from strategies.aggregators.pre_steps import PRE_STEPS, PreStep
from strategies.aggregators.tolerance import Tolerant
from strategies.gram import Doubles, squared_distances


@PRE_STEPS.register("nnm", "Allouah et al., AISTATS 2023")
@dataclass(frozen=True)
class NearestNeighbourMixing(Tolerant, PreStep):
    """Replace every update by the mean of its n - f nearest updates, itself included.

    Nearest-neighbour mixing (NNM; Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, AISTATS 2023) makes honest
    updates that differ more alike, so that a rule after it can tell them from hostile ones. Each keeps its prior.

    Breakdown: withstands f hostile updates among n >= 2 f + 1, together with a rule that does.
    """

    name = "nnm"

    def mix(self, gram: Doubles, prior: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the means of neighbours, and the prior as it is."""
        n = len(prior)
        count = n - self.hostile(n)
        squared = squared_distances(gram[:-1, :-1]) - np.eye(n)  # each is its own nearest, also beside equal ones
        nearest = np.argsort(squared, axis=1, kind="stable")[:, :count]
        coefficients = np.zeros((n, n + 1))
        np.put_along_axis(coefficients, nearest, 1 / count, axis=1)
        return coefficients, prior


@PRE_STEPS.register("bucketing", "Karimireddy, He, Jaggi, ICLR 2022")
@dataclass(frozen=True)
class Bucketing(PreStep):
    """Replace the updates by the means of random groups of ``size``, weighted by the prior.

    Bucketing (Karimireddy, He, Jaggi, ICLR 2022) lets honest updates that differ look more alike. A bucket with one
    hostile update is hostile: f stays, while the number of points shrinks, so ``size`` times more clients are needed.

    Parameters
    ----------
    size
        Updates in a bucket; the last bucket may hold fewer. 1 changes nothing but the order.
    """

    size: int = 2

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size = {self.size}: a bucket holds at least one update")

    def remaining(self, num_updates: int) -> int:
        """Return the number of buckets."""
        return math.ceil(num_updates / self.size)

    def mix(self, gram: Doubles, prior: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the buckets' means and the sums of their priors."""
        order = generator.permutation(len(prior))
        coefficients = np.zeros((self.remaining(len(prior)), len(prior) + 1))
        coefficients[np.arange(len(prior)) // self.size, order] = prior[order]
        shares = coefficients.sum(axis=1)
        return coefficients / shares[:, None], shares

    def __str__(self) -> str:
        """Return the name and the size."""
        return f"bucketing with size = {self.size}"


@PRE_STEPS.register("norm-clipping", "Sun, Kairouz, Suresh, McMahan, 2019")
@dataclass(frozen=True)
class NormClipping(PreStep):
    """Shorten every update that is longer than a limit.

    Sun, Kairouz, Suresh, McMahan, 2019. Its direction stays, so that no update wins by its length alone. No breakdown
    of its own: with the mean, hostile updates move the result by at most their prior times the limit. A limit taken
    from the median norm is itself bounded only as long as less than half of the updates are hostile.

    Parameters
    ----------
    limit
        Largest norm, in the units of the weights; 0 = ``factor`` times the median norm of the round.
    factor
        See ``limit``.
    """

    limit: float = 0.0
    factor: float = 1.0
    keeps_clients = True
    bounds = True

    def __post_init__(self) -> None:
        if not self.limit >= 0 or not self.factor > 0:
            raise ValueError(f"limit = {self.limit}, factor = {self.factor}: expected limit >= 0 and factor > 0")

    def mix(self, gram: Doubles, prior: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the shortened updates: what is taken away goes to the global model."""
        norms = np.sqrt(squared_distances(gram)[-1, :-1])
        limit = self.limit or self.factor * float(np.median(norms))
        scales = np.divide(limit, norms, out=np.ones_like(norms), where=norms > limit)
        return np.column_stack([np.diag(scales), 1 - scales]), prior
