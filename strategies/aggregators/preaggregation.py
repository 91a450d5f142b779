"""Pre-aggregators: nearest-neighbour mixing, bucketing, clipping to a norm (fixed, or adaptive: ARC).

They replace the updates by mixtures of them. A pre-aggregator sees the inner products of the rows of the update matrix,
not their values. So the inner products after it follow without another pass over the data, and the mixtures are made
block by block while the aggregator combines them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from strategies.aggregators.base import Aggregator, Combine, Counted, Tolerant
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles, UpdateMatrix, squared_distances
from tasks.issues import Issue, RunContext
from tasks.plugins import PluginError, Registry


class PreAggregator(Counted, ABC):
    """Replaces the updates by mixtures of them, before the aggregator.

    ``keeps_clients`` tells whether each row is still one client's update afterwards, only shorter. ``bounds`` tells
    whether no update, however large, can carry a mean of the mixtures far away; averaging alone does not.
    """

    keeps_clients: bool = False
    bounds: bool = False

    @abstractmethod
    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the mixtures and their weights.

        Parameters
        ----------
        gram
            Inner products of the N rows and, last, the global model, (N + 1, N + 1), to a common reference.
        client_weights
            Weights of the rows, (N,): positive, sum 1.
        generator
            For what the pre-aggregator draws.

        Returns
        -------
        tuple
            Coefficients (M, N + 1) with rows that sum to 1, the last column for the global model; and weights (M,).
        """

    def remaining(self, num_updates: int) -> int:
        """Return how many rows are left of so many."""
        return num_updates


PRE_AGGREGATORS = Registry("pre-aggregator", PreAggregator)


class Chain(Aggregator):
    """Some pre-aggregators, then an aggregator.

    Raises
    ------
    ValueError
        If the aggregator needs every client on its own and a pre-aggregator mixes them.
    """

    def __init__(self, pre_aggregators: Sequence[PreAggregator], aggregator: Aggregator) -> None:
        self.pre_aggregators = tuple(pre_aggregators)
        self.aggregator = aggregator
        self.robust = aggregator.robust or any(each.bounds for each in pre_aggregators)
        mixing = [str(each) for each in pre_aggregators if not each.keeps_clients]
        if aggregator.needs_clients and mixing:
            mixers = ", ".join(mixing)
            raise ValueError(f"{aggregator} needs the update of every client on its own, but {mixers} mixes them")

    def problem(self, num_updates: int, fact: str = "there are {}") -> str:
        """Return why a pre-aggregator or the aggregator gets too few rows, or an empty string."""
        left = num_updates
        for each in self.pre_aggregators:
            if problem := each.problem(left, fact):
                return problem
            if each.remaining(left) != left:
                fact = f"after {each} there are {{}}"
            left = each.remaining(left)
        return self.aggregator.problem(left, fact)

    def warning(self, num_updates: int) -> str:
        """Return the first warning of a pre-aggregator or the aggregator, or an empty string."""
        left = num_updates
        for each in self.pre_aggregators:
            if warning := each.warning(left):
                return warning
            left = each.remaining(left)
        return self.aggregator.warning(left)

    def missing(self, clients: Collection[int]) -> str:
        """Return which client's update the aggregator cannot do without and does not get, or an empty string."""
        return self.aggregator.missing(clients)

    def issues(self, context: RunContext) -> list[Issue]:
        """Return the aggregator's issues."""
        return self.aggregator.issues(context)

    def prepare(self, matrix: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the aggregator's combination of the mixtures, and the weights of the updates in it."""
        generator = np.random.default_rng(matrix.seed)
        for each in self.pre_aggregators:
            mixtures, client_weights = each.mix(matrix.gram, client_weights, generator)
            matrix = matrix.mixed(mixtures)
        combine, weights = self.aggregator.prepare(matrix, client_weights)
        assert matrix.mixtures is not None
        known = None if weights is None else weights @ matrix.mixtures[:, :-1]
        return lambda columns, block: combine(columns, matrix.values(block)), known

    def __str__(self) -> str:
        """Return the pre-aggregators and the aggregator, in order."""
        return " + ".join(map(str, [*self.pre_aggregators, self.aggregator]))


def build_aggregator(name: str, args: str = "", pre_aggregators: str = "") -> Aggregator:
    """Build an aggregator and its pre-aggregators, inline TOML such as ``nnm = { f = 4 }, bucketing = {}``.

    Raises
    ------
    PluginError
        If a name is unknown, an argument does not fit, or aggregator and pre-aggregators do not go together.
    """
    aggregator, before = AGGREGATORS.build(name, args), build_pre_aggregators(pre_aggregators)
    try:
        return Chain(before, aggregator) if before else aggregator
    except ValueError as error:
        raise PluginError(str(error)) from error


def build_pre_aggregators(text: str) -> list[PreAggregator]:
    """Build the pre-aggregators that inline TOML such as ``nnm = { f = 4 }, bucketing = {}`` names, in its order.

    Raises
    ------
    PluginError
        If a name is unknown, or an argument does not fit.
    """
    return list(PRE_AGGREGATORS.build_each(text).values())


@PRE_AGGREGATORS.register("nnm", "Allouah et al., AISTATS 2023", "https://arxiv.org/abs/2302.01772")
@dataclass(frozen=True)
class NearestNeighbourMixing(Tolerant, PreAggregator):
    """Replace every update by the mean of its n - f nearest updates, itself included.

    Nearest-neighbour mixing (NNM; Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, AISTATS 2023) makes honest
    updates that differ more alike, so that an aggregator after it can tell them from hostile ones. Each keeps its
    client weight.

    Breakdown: withstands f hostile updates among n >= 2 f + 1, together with an aggregator that does.
    """

    name = "nnm"

    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the means of neighbours, and the weights as they are."""
        n = len(client_weights)
        count = n - self.hostile(n)
        squared = squared_distances(gram[:-1, :-1]) - np.eye(n)  # each is its own nearest, also beside equal ones
        nearest = np.argsort(squared, axis=1, kind="stable")[:, :count]
        coefficients = np.zeros((n, n + 1))
        np.put_along_axis(coefficients, nearest, 1 / count, axis=1)
        return coefficients, client_weights


@PRE_AGGREGATORS.register("bucketing", "Karimireddy, He, Jaggi, ICLR 2022", "https://arxiv.org/abs/2006.09365")
@dataclass(frozen=True)
class Bucketing(PreAggregator):
    """Replace the updates by the means of random groups of ``size``, each with its client weight.

    Bucketing (Karimireddy, He, Jaggi, ICLR 2022) lets honest updates that differ look more alike. A bucket with one
    hostile update is hostile: f stays, while the number of rows shrinks, so ``size`` times more clients are needed.

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

    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the buckets' means and the sums of their weights."""
        order = generator.permutation(len(client_weights))
        coefficients = np.zeros((self.remaining(len(client_weights)), len(client_weights) + 1))
        coefficients[np.arange(len(client_weights)) // self.size, order] = client_weights[order]
        shares = coefficients.sum(axis=1)
        return coefficients / shares[:, None], shares

    def __str__(self) -> str:
        """Return the name and the size."""
        return f"bucketing with size = {self.size}"


@PRE_AGGREGATORS.register("norm-clipping", "Sun, Kairouz, Suresh, McMahan, 2019", "https://arxiv.org/abs/1911.07963")
@dataclass(frozen=True)
class NormClipping(PreAggregator):
    """Shorten every update that is longer than a limit.

    Sun, Kairouz, Suresh, McMahan, 2019. Its direction stays, so that no update wins by its length alone. No breakdown
    of its own: with the mean, hostile updates move the result by at most their weight times the limit. A limit taken
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

    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the shortened updates: what is taken away goes to the global model."""
        norms = np.sqrt(squared_distances(gram)[-1, :-1])
        limit = self.limit or self.factor * float(np.median(norms))
        return shortened(norms, limit), client_weights


def shortened(norms: Doubles, limit: float) -> Doubles:
    """Return the coefficients (N, N + 1) that shorten updates of these norms (N,) to a limit."""
    scales = np.divide(limit, norms, out=np.ones_like(norms), where=norms > limit)
    return np.column_stack([np.diag(scales), 1 - scales])


@PRE_AGGREGATORS.register("arc", "Allouah et al., ICLR 2025", "https://arxiv.org/abs/2405.14432")
@dataclass(frozen=True)
class AdaptiveRobustClipping(Tolerant, PreAggregator):
    """Shorten the longest updates, about 2 f of them, to the norm of the longest of the others.

    Adaptive robust clipping (ARC; Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan, ICLR 2025,
    https://arxiv.org/abs/2405.14432) clips the k = floor(2 (f / n) (n - f)) longest updates to the norm of the one
    that follows them. As k is at least f, that norm is never above the longest honest one, however long hostile updates
    are, and an aggregator withstands after it what it withstands alone. f = 0 changes nothing.

    Breakdown: withstands f hostile updates among n >= 2 f + 1, together with an aggregator that does. The mean after it
    is bounded too: no update is longer than the longest honest one.
    """

    name = "arc"
    keeps_clients = True

    @property
    def bounds(self) -> bool:  # type: ignore[override]
        """Whether it clips at all."""
        return self.f != 0

    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the shortened updates: what is taken away goes to the global model."""
        norms = np.sqrt(squared_distances(gram)[-1, :-1])
        n, f = len(norms), self.hostile(len(norms))
        limit = np.sort(norms)[n - 2 * f * (n - f) // n - 1]
        return shortened(norms, float(limit)), client_weights
