"""Collusion attacks that know no aggregator: Mimic, Min-Max, Min-Sum.

What they know: their own data, the model that they received, and the updates that honest training gives each of the
hostile clients. In the papers the attackers may also see the honest clients' updates; here these are estimated from
their own, the papers' harder case. Neither the aggregator nor the clients' weights are known.

Shapes: m hostile clients, P parameters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from client_app.attacks.base import ATTACKS, CollusionAttack, FederationFacts
from client_app.losses.base import expect

DIRECTIONS = ("std", "unit", "sign")


class SpreadAttack(CollusionAttack):
    """An attack that hides in the spread of the honest updates, which takes two of them at least."""

    def problem(self, facts: FederationFacts) -> str:
        """Return that one client has no spread to hide in, if so."""
        if facts.num_hostile < 2:
            return "one hostile client does not see how honest updates differ: raise attack.share"
        return ""


@ATTACKS.register("mimic", "Karimireddy, He, Jaggi, ICLR 2022", "https://arxiv.org/abs/2006.09365")
@dataclass(frozen=True)
class Mimic(SpreadAttack):
    """Send the honest update of one client, so that its data count as often as there are hostile clients.

    Nothing about a single update is wrong, so no filter finds it; where clients' data differ, a robust aggregator takes
    the copies for the majority. Whom to copy: with z the direction in which the updates differ most, the client whose
    update reaches furthest along it, argmax_i |<z, x_i>|. The paper (https://arxiv.org/abs/2006.09365) gathers z over
    the first rounds and then keeps the client; attackers here keep nothing between rounds, so both follow from the
    updates of the round, and the client may change. It is one of the hostile ones, as they do not see others.
    """

    def agree(self, updates: Tensor, facts: FederationFacts) -> Tensor:
        """Return the update that is furthest along the direction of largest variance."""
        centred = updates - updates.mean(0)
        _, vectors = torch.linalg.eigh((centred @ centred.T).double())
        direction = vectors[:, -1].to(updates) @ centred
        return updates[int((updates @ direction).abs().argmax())]


@dataclass(frozen=True)
class Bounded(SpreadAttack):
    """Base of Min-Max and Min-Sum: the mean of the honest updates, pushed along a direction as far as a bound allows.

    ``direction`` is the paper's perturbation: ``std`` goes against the standard deviation of each parameter, ``unit``
    against the mean, ``sign`` against its sign. Its length does not matter. Shejwalkar, Houmansadr, NDSS 2021.

    Parameters
    ----------
    direction
        Where to: "std" (against the standard deviation of each parameter), "unit" (against the mean) or "sign" (against
        its sign).
    """

    direction: str = "std"

    def __post_init__(self) -> None:
        expect(self.direction in DIRECTIONS, f"direction = {self.direction!r}: must be one of {', '.join(DIRECTIONS)}")

    def perturbation(self, updates: Tensor) -> Tensor:
        """Return the direction (P,), of any length; 0 where the updates are equal, or their mean is 0."""
        if self.direction == "std":
            return -updates.std(0, correction=0)
        return -updates.mean(0) if self.direction == "unit" else -updates.mean(0).sign()


@ATTACKS.register("min-max", "Shejwalkar, Houmansadr, NDSS 2021", "https://doi.org/10.14722/ndss.2021.24498")
@dataclass(frozen=True)
class MinMax(Bounded):
    """Push the mean of the honest updates as far as no distance exceeds the largest between two honest ones.

    Send ``mean + gamma p`` with the largest gamma for which ``max_i |mean + gamma p - x_i| <= max_ij |x_i - x_j|``, so
    that it is no outlier by its distance to any other. For each i that is a quadratic equation in gamma, so the result
    is exact where the authors' code halves a step. Mean, spread and distances are those of the
    hostile clients' own honest updates. https://doi.org/10.14722/ndss.2021.24498
    """

    def agree(self, updates: Tensor, facts: FederationFacts) -> Tensor:
        """Return the mean, pushed to the bound."""
        towards, mean = self.perturbation(updates), updates.mean(0)
        offsets = mean - updates
        square, linear = towards.double().square().sum(), (offsets @ towards).double()
        if not square > 0:
            return mean
        squared = _squared_distances(updates)
        room = squared.max() - offsets.double().square().sum(1)
        gamma = (torch.sqrt(linear.square() + square * room.clamp(min=0)) - linear) / square
        return torch.add(mean, gamma.min().to(mean) * towards)


@ATTACKS.register("min-sum", "Shejwalkar, Houmansadr, NDSS 2021", "https://doi.org/10.14722/ndss.2021.24498")
@dataclass(frozen=True)
class MinSum(Bounded):
    """Push the mean of the honest updates as far as its squared distances sum to no more than those of an honest one.

    Send ``mean + gamma p`` with the largest gamma for which ``sum_i |mean + gamma p - x_i|^2 <= max_i sum_j
    |x_i - x_j|^2``. Both sums are that of the distances to the mean plus m squared distances from the mean, so the
    result lies exactly as far from the mean as the farthest honest update. Mean, spread and
    distances are those of the hostile clients' own honest updates. https://doi.org/10.14722/ndss.2021.24498
    """

    def agree(self, updates: Tensor, facts: FederationFacts) -> Tensor:
        """Return the mean, pushed to the bound."""
        towards, mean = self.perturbation(updates), updates.mean(0)
        length = torch.linalg.vector_norm(towards.double())
        if not length > 0:
            return mean
        farthest = torch.linalg.vector_norm((updates - mean).double(), dim=1).max()
        return torch.add(mean, (farthest / length).to(mean) * towards)


def _squared_distances(updates: Tensor) -> Tensor:
    """Return the squared distances between updates (m, m) in double precision, from their differences."""
    return torch.stack([(updates - update).double().square().sum(1) for update in updates])
