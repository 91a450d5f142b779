"""Attacks for which the hostile clients put their honest updates together and all send the same one."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor

from client_app.attacks.base import ATTACKS, CollusionAttack, Facts
from client_app.losses.base import expect


@ATTACKS.register("alie", "Baruch, Baruch, Goldberg, NeurIPS 2019")
@dataclass(frozen=True)
class Alie(CollusionAttack):
    """A little is enough: send mean - z x standard deviation of the honest updates, parameter by parameter.

    So small a shift hides among the honest updates, yet it always points the same way. ``z`` = 0 stands for
    :func:`largest_hidden_shift`. Mean and population standard deviation are those over the hostile clients' own honest
    updates, as the attackers do not see others. Baruch, Baruch, Goldberg, NeurIPS 2019.
    """

    z: float = 0.0

    def __post_init__(self) -> None:
        expect(0 <= self.z < math.inf, f"z = {self.z}: must be above 0, or 0 for the paper's value")

    def problem(self, facts: Facts) -> str:
        """Return why there is no shift, if so."""
        clients, hostile = facts.num_clients, facts.num_hostile
        if hostile < 2:
            return "one hostile client has no standard deviation to hide in: raise attack.share"
        shift = self.z or largest_hidden_shift(clients, hostile)
        if not 0 < shift < math.inf:
            return (
                f"the paper's z for {hostile} hostile of {clients} clients is {shift:.2g}, "
                'expected one above 0: set it, as in attack.args = "z = 1.0"'
            )
        return ""

    def agree(self, updates: Tensor, facts: Facts) -> Tensor:
        """Return the shifted mean."""
        shift = self.z or largest_hidden_shift(facts.num_clients, facts.num_hostile)
        return updates.mean(0) - shift * updates.std(0, correction=0)


def largest_hidden_shift(clients: int, hostile: int) -> float:
    """Return the z of Baruch et al. (2019) for n clients, m of them hostile; infinite from half of them on.

    The attackers need s = floor(n / 2 + 1) - m honest clients that lie further out than they do, to be on the side of
    a majority: z is the standard normal quantile of (n - m - s) / (n - m).

    >>> round(largest_hidden_shift(50, 12), 3)
    0.336
    """
    needed = clients // 2 + 1 - hostile
    return NormalDist().inv_cdf((clients - hostile - needed) / (clients - hostile)) if needed > 0 else math.inf


@ATTACKS.register("inner-product", "Xie, Koyejo, Gupta, UAI 2020")
@dataclass(frozen=True)
class InnerProduct(CollusionAttack):
    """Inner product manipulation: send -epsilon x mean of the honest updates.

    The inner product with the true mean is negative, so the model climbs the loss; a small ``epsilon`` keeps the update
    close to the honest ones. The mean is that of the hostile clients' own honest updates. Xie, Koyejo, Gupta, UAI 2020.
    """

    epsilon: float = 0.5

    def __post_init__(self) -> None:
        expect(0 < self.epsilon < math.inf, f"epsilon = {self.epsilon}: must be above 0")

    def agree(self, updates: Tensor, facts: Facts) -> Tensor:
        """Return the reversed mean."""
        return -self.epsilon * updates.mean(0)
