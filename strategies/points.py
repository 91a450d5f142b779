"""The updates of a round as an aggregation rule sees them: points, of which no second copy is ever made.

A rule asks for inner products, for one tensor after the other, or for the roles of the clients. A step before the rule
replaces the points by mixtures of them; these are kept as the matrix of their coefficients, so that their inner
products follow from those of the updates, and their values are made block by block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from strategies.gram import Doubles, Vector, gram_matrix

LARGEST = 1e150  # sums of squares of larger values overflow float64


@dataclass(frozen=True)
class Points:
    """N updates, or M mixtures of them.

    ``vectors`` are N updates (P,); ``sizes`` the lengths of the tensors that lie one after the other in each of them;
    ``roles`` what each client is known to be (clean, noisy, unknown); ``seed`` decides what a step draws. ``mixtures``
    (M, N + 1) are the coefficients of each point, the last one that of the global model; rows sum to 1.
    """

    vectors: Sequence[Vector]
    sizes: tuple[int, ...] = ()
    roles: tuple[str, ...] = ()
    seed: int = 0
    mixtures: Doubles | None = None

    def __len__(self) -> int:
        return len(self.vectors) if self.mixtures is None else len(self.mixtures)

    @cached_property
    def gram(self) -> Doubles:
        """Inner products of all points and, last, the global model: (M + 1, M + 1), relative to a common reference.

        Raises
        ------
        ValueError
            If an update has values that are not finite or too large.
        """
        gram = gram_matrix(self.vectors)
        if not np.isfinite(gram).all():
            raise not_finite(self.vectors)
        return gram

    def mixed(self, coefficients: Doubles) -> "Points":
        """Return new points, (L, M + 1) ``coefficients`` of the present ones and the global model."""
        corner = _with_global_model(coefficients)
        before = np.eye(len(self.vectors) + 1) if self.mixtures is None else _with_global_model(self.mixtures)
        points = replace(self, mixtures=coefficients @ before)
        points.__dict__["gram"] = corner @ self.gram @ corner.T  # what cached_property would store
        return points

    def values(self, block: Doubles) -> Doubles:
        """Return the values of the points, (M, B), where those of the updates are ``block`` (N, B)."""
        return block if self.mixtures is None else self.mixtures[:, :-1] @ block

    def tensors(self) -> Iterator[tuple[slice, "Points"]]:
        """Yield each tensor's place in the vectors, and the points of that tensor alone."""
        ends = np.cumsum([0, *(self.sizes or [len(self.vectors[0])])])
        for start, stop in pairwise(ends.tolist()):
            columns = slice(start, stop)
            alone = replace(self, vectors=[vector[columns] for vector in self.vectors], sizes=(), mixtures=None)
            yield columns, alone if self.mixtures is None else alone.mixed(self.mixtures)


def _with_global_model(coefficients: Doubles) -> Doubles:
    """Return the coefficients with a last row for the global model, which every step leaves where it is."""
    return np.vstack([coefficients, np.eye(coefficients.shape[1])[-1]])


def not_finite(updates: Sequence[Vector], name: str = "the rule") -> ValueError:
    """Return the error that names the updates to blame, or the rule if there are none."""
    broken = [i for i, update in enumerate(updates) if not float(np.abs(update).max(initial=0)) < LARGEST]
    if not broken:
        return ValueError(f"{name} returned values that are not finite")
    return ValueError(
        f"updates {broken} have values that are not finite, or above {LARGEST:g}; set them aside before aggregating"
    )
