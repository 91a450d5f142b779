"""Optimal attack factors: ALIE and inner-product manipulation, with a factor searched against the server's aggregator.

An attack with a fixed factor is as strong as its guess: too small does little, too large is filtered out. Here the
hostile clients play the round through beforehand, with many factors, and send what moves the result furthest (Allouah,
Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, AISTATS 2023, https://arxiv.org/abs/2302.01772; Shejwalkar, Houmansadr,
NDSS 2021, search in this way for a factor too).

What they know, beside their own honest updates: how many clients there are and how many train in a round, and the
aggregator with its arguments and pre-aggregators. What they do not know: the honest clients' updates, for which their
own stand, and draws with the mean and the covariance of these; client weights, taken as equal; what the server draws.

Shapes: m hostile clients, H honest ones in a round, P parameters.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from client_app.attacks.base import ATTACKS, AttackContext, FederationFacts, LocalUpdate
from client_app.attacks.collusion import SpreadAttack
from client_app.losses.base import expect
from tasks.issues import ERROR, UNBUILT, Issue, RunContext

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Searched(SpreadAttack):
    """Base of the attacks with a searched factor from 0 to ``largest``; ``evaluations`` factors are tried.

    Parameters
    ----------
    largest
        Bound on the factor: against the mean the largest is the best.
    evaluations
        Factors that are tried in a round, each a whole aggregation.
    """

    largest: float = 10.0
    evaluations: int = 24
    knows_rule: ClassVar[bool] = True

    def __post_init__(self) -> None:
        expect(0 < self.largest < math.inf, f"largest = {self.largest}: must be above 0")
        expect(self.evaluations >= 4, f"evaluations = {self.evaluations}: must be at least 4")

    @abstractmethod
    def candidate(self, updates: Tensor, factor: float) -> Tensor:
        """Return what to send (P,) with a factor, made from the honest updates (m, P)."""

    def agree(self, updates: Tensor, facts: FederationFacts) -> Tensor:
        """Return what is sent where the largest factor is the best, as against the mean."""
        return self.candidate(updates, self.largest)

    def problem(self, facts: FederationFacts) -> str:
        """Return that there is nobody whose updates could be moved, if so."""
        everybody = facts.num_hostile == facts.num_clients
        return (
            "all clients are hostile: there is no honest update to hide among" if everybody else super().problem(facts)
        )

    def issues(self, context: RunContext) -> list[Issue]:
        """Return that there is no aggregator to search against, or no round in which it combines two updates."""
        attack, strategy, found = context.settings.attack, context.settings.strategy, super().issues(context)
        if context.strategy is not UNBUILT and getattr(context.strategy, "aggregator", None) is None:
            text = f"attack {attack.name} searches against the aggregator, and the strategy {strategy.name} has none"
            found.append(Issue(ERROR, "attack", text, "choose an attack with a fixed factor, such as alie"))
        if context.sampled < 2:
            text = f"attack {attack.name} hides among others, and one client trains in a round"
            found.append(Issue(ERROR, "federation.fraction-train", text, "let two clients train, or more"))
        return found

    def act(self, context: AttackContext) -> LocalUpdate:
        """Return what honest training gives, with the common update that does most harm."""
        honest = context.honest_updates()
        updates = torch.stack([one.update for one in honest.values()])
        return replace(honest[context.data.client], update=context.once(lambda: self._search(updates, context)))

    def _search(self, updates: Tensor, context: AttackContext) -> Tensor:
        assert context.rule is not None, "only a simulation makes attacks, and it knows its aggregator"
        rule, others = context.rule, stand_ins(updates, context.rule.num_honest, context.shared_draws)
        mean = others.mean(0)

        def harm(factor: float) -> float:
            moved = rule(others, self.candidate(updates, factor)) - mean
            return float(torch.linalg.vector_norm(moved.double()))

        return self.candidate(updates, most_harmful(harm, self.largest, self.evaluations))


def stand_ins(updates: Tensor, count: int, draws: np.random.Generator) -> Tensor:
    """Return what the attackers take for the honest updates of a round, (count, P).

    Their own m come first; what is missing is drawn from a Gaussian with their mean and their sample covariance, which
    needs m random numbers for each, as the draws lie in the span of the m.
    """
    known = updates[:count]
    mean = updates.mean(0)
    mixed = draws.standard_normal((max(count - len(updates), 0), len(updates))) / math.sqrt(len(updates) - 1)
    return torch.cat([known, mean + torch.from_numpy(mixed).to(updates) @ (updates - mean)])


def most_harmful(harm: Callable[[float], float], largest: float, evaluations: int) -> float:
    """Return the factor in (0, largest] that does most harm, of those that are tried.

    Half of the evaluations go to factors that halve from ``largest`` on, as harm may fall at once where a rule starts
    to filter; the others narrow the best one's surroundings, by golden section.
    """
    tried = {largest * 0.5**i: 0.0 for i in range((evaluations + 1) // 2)}
    for factor in tried:
        tried[factor] = harm(factor)
    best = max(tried, key=lambda factor: tried[factor])
    low, high = best / 2, min(2 * best, largest)
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    values = [harm(factor) for factor in inner]
    for _ in range(evaluations - len(tried) - 2):
        tried.update(zip(inner, values, strict=True))
        if values[0] >= values[1]:  # beyond a cliff harm may be the same everywhere
            high = inner[1]
            inner = [high - GOLDEN * (high - low), inner[0]]
            values = [harm(inner[0]), values[0]]
        else:
            low = inner[0]
            inner = [inner[1], low + GOLDEN * (high - low)]
            values = [values[1], harm(inner[1])]
    tried.update(zip(inner, values, strict=True))
    return max(tried, key=lambda factor: tried[factor])


@ATTACKS.register(
    "optimal-alie",
    "Baruch et al., NeurIPS 2019; Allouah et al., AISTATS 2023",
    "https://arxiv.org/abs/1902.06156",
    "https://arxiv.org/abs/2302.01772",
)
@dataclass(frozen=True)
class OptimalAlie(Searched):
    """ALIE with the z that moves the server's aggregator furthest, searched in every round.

    Send mean - z x standard deviation. ``largest`` bounds z: against the mean the largest is the best.
    ``evaluations`` is how many are tried, each a whole aggregation. Beside what ``alie`` knows, the attackers know the
    aggregator and its arguments. Baruch, Baruch, Goldberg, NeurIPS 2019; the search as in Allouah, Farhadkhani,
    Guerraoui, Gupta, Pinot, Stephan, AISTATS 2023.
    """

    def candidate(self, updates: Tensor, factor: float) -> Tensor:
        """Return the shifted mean."""
        return updates.mean(0) - factor * updates.std(0, correction=0)


@ATTACKS.register(
    "optimal-inner-product",
    "Xie, Koyejo, Gupta, UAI 2020; Allouah et al., AISTATS 2023",
    "https://arxiv.org/abs/1903.03936",
    "https://arxiv.org/abs/2302.01772",
)
@dataclass(frozen=True)
class OptimalInnerProduct(Searched):
    """Inner-product manipulation with the epsilon that moves the server's aggregator furthest, searched in every round.

    Send -epsilon x mean. ``largest`` bounds epsilon: against the mean the largest is the best. ``evaluations`` is how
    many are tried, each a whole aggregation. Beside what ``inner-product`` knows, the attackers know the aggregator and
    its arguments. Xie, Koyejo, Gupta, UAI 2020; the search as in Allouah, Farhadkhani, Guerraoui, Gupta, Pinot,
    Stephan, AISTATS 2023.
    """

    def candidate(self, updates: Tensor, factor: float) -> Tensor:
        """Return the reversed mean."""
        return -factor * updates.mean(0)
