"""Named arrays of client methods, combined at the server over the clients of a round, or the last of every client.

How is each array's own rule; behind a robust aggregator its robust one, for a mean is as easily moved as that of the
weights would be. Example counts are limited there as they are for updates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.extra_arrays import NAMED, Doubles, ExtraArray

Remembered = dict[int, tuple[int, npt.NDArray[np.generic]]]
"""By client its example count and its last array."""
MOST_WEIGHT, MOST_OF_THREE = 2.0, 1.5
"""Largest client weight behind a robust aggregator, in medians. Of three clients one with twice the median would hold
half of all weight, and a geometric median be its update alone."""


def limited(counts: Doubles) -> Doubles:
    """Return example counts (N,), none larger than a robust aggregator believes beside the others."""
    most = MOST_OF_THREE if len(counts) == 3 else MOST_WEIGHT
    return np.minimum(counts, most * np.median(counts))


class ArrayCombiner:
    """Combines declared arrays; ``remembered`` holds the last one of each client, of those that are to be remembered.

    Parameters
    ----------
    declared
        What the client method exchanges.
    robust
        Whether the aggregator is a robust one.
    """

    def __init__(self, declared: Sequence[ExtraArray], robust: bool) -> None:
        self._declared = {NAMED + one.name: one for one in declared}
        self._robust = robust
        self.remembered: dict[str, Remembered] = {name: {} for name, one in self._declared.items() if one.remembered}

    def combine(
        self,
        name: str,
        arrays: Mapping[int, npt.NDArray[np.generic]],
        examples: Mapping[int, int],
        weights: Doubles,
        present: npt.NDArray[np.generic],
    ) -> Doubles:
        """Return the new value of one array, float64.

        Parameters
        ----------
        name
            As it travels.
        arrays, examples
            What each client of the round has sent, and its example count, by client.
        weights
            What each client's update may weigh, (N,), in the order of ``arrays``.
        present
            What the clients were sent.

        Raises
        ------
        ValueError
            If the rule returns another shape.
        """
        one = self._declared[name]
        rule = one.robust_rule if self._robust else one.rule
        if one.remembered:
            kept = self.remembered[name]
            kept.update({client: (examples[client], array) for client, array in arrays.items()})
            counts = np.array([kept[client][0] for client in sorted(kept)], np.float64)
            if self._robust:
                counts = limited(counts)
            weights = counts / counts.sum()
            arrays = {client: kept[client][1] for client in sorted(kept)}
        stacked = np.stack([*arrays.values()], dtype=np.float64)
        value = np.asarray(rule(stacked, weights, present.astype(np.float64)))
        if value.shape != present.shape:
            raise ValueError(f"the rule of the extra array {one.name} returned {value.shape}, expected {present.shape}")
        return value

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered of each client, by array."""
        return {name: dict(kept) for name, kept in self.remembered.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        if state.keys() != self.remembered.keys():
            raise ValueError(f"remembered arrays {sorted(state)}, expected {sorted(self.remembered)}")
        self.remembered = {name: dict(kept) for name, kept in state.items()}
