"""Pre-aggregators replace the updates by mixtures of them, and compose with any rule: NNM, bucketing, norm clipping."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strategies.aggregators.base import Aggregator, Combine, Counted, Tolerant
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles, UpdateMatrix, squared_distances
from tasks.plugins import PluginError, Registry


class PreAggregator(Counted, ABC):
    """A step before the rule.

    ``keeps_clients`` tells whether each point is still one client's update afterwards, only shorter. ``bounds`` tells
    whether no update, however large, can carry a mean of the mixtures far away; averaging alone does not.
    """

    keeps_clients: bool = False
    bounds: bool = False

    @abstractmethod
    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the mixtures and their prior weights.

        Parameters
        ----------
        gram
            Inner products of the N points and, last, the global model, (N + 1, N + 1), to a common reference.
        prior
            Weights of the points, (N,): positive, sum 1.
        generator
            For what the step draws.

        Returns
        -------
        tuple
            Coefficients (M, N + 1) with rows that sum to 1, the last column for the global model; and prior (M,).
        """

    def remaining(self, num_updates: int) -> int:
        """Return how many points are left of so many."""
        return num_updates


class Chain(Aggregator):
    """Some steps, then a rule.

    Raises
    ------
    ValueError
        If the rule needs every client on its own and a step mixes them.
    """

    def __init__(self, steps: Sequence[PreAggregator], rule: Aggregator) -> None:
        self.steps = tuple(steps)
        self.rule = rule
        self.robust = rule.robust or any(step.bounds for step in steps)
        mixing = [str(step) for step in steps if not step.keeps_clients]
        if rule.needs_clients and mixing:
            raise ValueError(f"{rule} needs the update of every client on its own, but {', '.join(mixing)} mixes them")

    def problem(self, num_updates: int, fact: str = "there are {}") -> str:
        """Return why a step or the rule gets too few points, or an empty string."""
        left = num_updates
        for step in self.steps:
            if problem := step.problem(left, fact):
                return problem
            if step.remaining(left) != left:
                fact = f"after {step} there are {{}}"
            left = step.remaining(left)
        return self.rule.problem(left, fact)

    def remark(self, num_updates: int) -> str:
        """Return the first remark of a step or the rule, or an empty string."""
        left = num_updates
        for step in self.steps:
            if remark := step.remark(left):
                return remark
            left = step.remaining(left)
        return self.rule.remark(left)

    def prepare(self, points: UpdateMatrix, client_weights: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the rule's combination of the mixtures, and the weights of the updates in it."""
        generator = np.random.default_rng(points.seed)
        for step in self.steps:
            mixtures, client_weights = step.mix(points.gram, client_weights, generator)
            points = points.mixed(mixtures)
        combine, weights = self.rule.prepare(points, client_weights)
        assert points.mixtures is not None
        known = None if weights is None else weights @ points.mixtures[:, :-1]
        return lambda columns, block: combine(columns, points.values(block)), known

    def __str__(self) -> str:
        """Return the steps and the rule, in order."""
        return " + ".join(map(str, [*self.steps, self.rule]))


PRE_AGGREGATORS = Registry("pre-aggregator", PreAggregator)


def build_aggregator(name: str, args: str = "", pre_aggregators: str = "") -> Aggregator:
    """Build a rule and the steps before it; these are inline TOML such as ``nnm = { f = 4 }, bucketing = {}``.

    Raises
    ------
    PluginError
        If a name is unknown, an argument does not fit, or rule and steps do not go together.
    """
    rule, steps = AGGREGATORS.build(name, args), build_pre_aggregators(pre_aggregators)
    try:
        return Chain(steps, rule) if steps else rule
    except ValueError as error:
        raise PluginError(str(error)) from error


def build_pre_aggregators(text: str) -> list[PreAggregator]:
    """Build the steps that inline TOML such as ``nnm = { f = 4 }, bucketing = {}`` names, in its order.

    Raises
    ------
    PluginError
        If a name is unknown, or an argument does not fit.
    """
    return list(PRE_AGGREGATORS.build_each(text).values())


@PRE_AGGREGATORS.register("nnm", "Allouah et al., AISTATS 2023")
@dataclass(frozen=True)
class NearestNeighbourMixing(Tolerant, PreAggregator):
    """Replace every update by the mean of its n - f nearest updates, itself included.

    Nearest-neighbour mixing (NNM; Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, AISTATS 2023) makes honest
    updates that differ more alike, so that a rule after it can tell them from hostile ones. Each keeps its prior.

    Breakdown: withstands f hostile updates among n >= 2 f + 1, together with a rule that does.
    """

    name = "nnm"

    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the means of neighbours, and the prior as it is."""
        n = len(client_weights)
        count = n - self.hostile(n)
        squared = squared_distances(gram[:-1, :-1]) - np.eye(n)  # each is its own nearest, also beside equal ones
        nearest = np.argsort(squared, axis=1, kind="stable")[:, :count]
        coefficients = np.zeros((n, n + 1))
        np.put_along_axis(coefficients, nearest, 1 / count, axis=1)
        return coefficients, client_weights


@PRE_AGGREGATORS.register("bucketing", "Karimireddy, He, Jaggi, ICLR 2022")
@dataclass(frozen=True)
class Bucketing(PreAggregator):
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

    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the buckets' means and the sums of their priors."""
        order = generator.permutation(len(client_weights))
        coefficients = np.zeros((self.remaining(len(client_weights)), len(client_weights) + 1))
        coefficients[np.arange(len(client_weights)) // self.size, order] = client_weights[order]
        shares = coefficients.sum(axis=1)
        return coefficients / shares[:, None], shares

    def __str__(self) -> str:
        """Return the name and the size."""
        return f"bucketing with size = {self.size}"


@PRE_AGGREGATORS.register("norm-clipping", "Sun, Kairouz, Suresh, McMahan, 2019")
@dataclass(frozen=True)
class NormClipping(PreAggregator):
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

    def mix(self, gram: Doubles, client_weights: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the shortened updates: what is taken away goes to the global model."""
        norms = np.sqrt(squared_distances(gram)[-1, :-1])
        limit = self.limit or self.factor * float(np.median(norms))
        scales = np.divide(limit, norms, out=np.ones_like(norms), where=norms > limit)
        return np.column_stack([np.diag(scales), 1 - scales]), client_weights
