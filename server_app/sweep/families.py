"""Families of tests: the differences of many pairs of options, tested and corrected together by Holm's procedure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from server_app.sweep.results import BETTER, WORSE, Difference, Family
from server_app.sweep.statistics import LEVEL, Doubles, holm, interval, overall_p, paired_p
from server_app.sweep.values import Pair, ValueGrid

Place = tuple[Pair, int | None]
"""A pair of options in one setting, or over all settings (None)."""


@dataclass(frozen=True)
class TestedFamily:
    """The differences of a family by place, and its size."""

    options: tuple[str, ...]
    found: Mapping[Place, Difference]
    family: Family

    def seen_from(self, pair: Pair, setting: int | None) -> Difference | None:
        """Return how the first option of a pair differs from the second, whichever of the two was tested."""
        if (pair, setting) in self.found:
            return self.found[pair, setting]
        other = self.found.get(((pair[1], pair[0]), setting))
        return None if other is None else _reversed(other, self.options[pair[1]])


def tested_family(grid: ValueGrid, places: Sequence[Place]) -> TestedFamily:
    """Test the differences at these places and correct their p values together.

    A place where fewer than two pairs have values has no p and does not count.
    """
    found = {place: _difference(grid, *place) for place in places}
    p_values = {place: each.p for place, each in found.items() if each.p is not None}
    for place, adjusted in zip(p_values, holm(list(p_values.values())), strict=True):
        found[place] = _judged(found[place], adjusted, grid.lower_is_better)
    pairs = max((found[place].pairs for place in p_values), default=0)
    return TestedFamily(grid.options, found, Family(len(p_values), pairs))


def _difference(grid: ValueGrid, pair: Pair, setting: int | None) -> Difference:
    differences = grid.differences(pair)
    if setting is None:  # one mean for each seed: its settings may go together
        chosen, means, p = differences, differences.mean(0), overall_p(differences)
    else:
        chosen = means = differences[setting]
        p = paired_p(_there(chosen))
    pairs = _there(chosen)
    return Difference(
        reference=grid.options[pair[1]],
        pairs=len(pairs),
        mean=float(pairs.mean()) if len(pairs) else None,
        interval=interval(_there(means)),
        p=p,
    )


def _there(values: Doubles) -> Doubles:
    there: Doubles = values[~np.isnan(values)]
    return there


def _judged(found: Difference, adjusted: float, lower: bool) -> Difference:
    assert found.mean is not None, "what has a p has pairs"
    direction = BETTER if (found.mean < 0) == lower else WORSE
    return replace(found, adjusted=adjusted, verdict=direction if adjusted <= LEVEL else "")


def _reversed(found: Difference, reference: str) -> Difference:
    """Return the same difference seen from the other option."""
    return replace(
        found,
        reference=reference,
        mean=None if found.mean is None else -found.mean,
        interval=None if found.interval is None else (-found.interval[1], -found.interval[0]),
        verdict={BETTER: WORSE, WORSE: BETTER}.get(found.verdict, ""),
    )
