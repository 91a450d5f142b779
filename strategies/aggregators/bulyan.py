"""Bulyan (El Mhamdi, Guerraoui, Rouault, ICML 2018)."""

from dataclasses import dataclass
from typing import ClassVar

from strategies.aggregators.base import Combine, Rule
from strategies.aggregators.krum import select_repeatedly
from strategies.aggregators.mea_med import nearest_to_median_mean
from strategies.aggregators.registry import AGGREGATORS
from strategies.aggregators.tolerance import Tolerant
from strategies.gram import Doubles, squared_distances
from strategies.points import Points


@AGGREGATORS.register("bulyan", "El Mhamdi, Guerraoui, Rouault, ICML 2018")
@dataclass(frozen=True)
class Bulyan(Tolerant, Rule):
    """Mean of the middle values of each coordinate, among updates that Krum chooses one after the other.

    Krum selects n - 2 f updates, each among those that are left; of their values in a coordinate, the n - 4 f nearest
    to their median are averaged. Where Krum alone lets one coordinate be far off as long as the whole update is near,
    this bounds every coordinate. The prior does not matter.

    Breakdown: withstands f hostile updates among n >= 4 f + 3.
    """

    per_hostile: ClassVar[int] = 4
    beside: ClassVar[int] = 3

    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the combination of the selected updates; no client has one weight for all coordinates."""
        n, f = len(points), self.hostile(len(points))
        selected = select_repeatedly(squared_distances(points.gram[:-1, :-1]), f, n - 2 * f)
        return lambda _, block: nearest_to_median_mean(block[selected], n - 4 * f), None
