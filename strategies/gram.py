"""The Gram matrix of many updates: every inner product, in one pass over the data and in double precision.

Updates are read in blocks of columns that stay in a core's cache, so no second copy of them ever exists. A product
of two float32 numbers is exact in float64, so what is left is the rounding of the sums: at most about 1e-14 of the two
norms, which are taken from a *reference*, the update with the smallest norm. Subtracting it keeps the differences
between updates that share a large common part, and it can do no harm: as it is the smallest,
``norm(x_i - reference) <= 2 * norm(x_i)`` for every i. The mean would carry a single update of 1e12 into all others.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

BLOCK = 2**18  # numbers in a block: 2 MiB of float64
RESOLUTION = 1e-13  # squared distances below this share of the squared norms are rounding


def blocks(updates: Sequence[Vector]) -> Iterator[tuple[slice, Doubles]]:
    """Yield ``(columns, block)``: every update's values in these columns, (N, B) float64, free to be overwritten."""
    size = len(updates[0])
    width = max(1, BLOCK // len(updates))
    for start in range(0, size, width):
        columns = slice(start, min(start + width, size))
        yield columns, np.stack([update[columns] for update in updates], dtype=np.float64)


def gram_matrix(updates: Sequence[Vector]) -> Doubles:
    """Return all inner products ``<x_i - r, x_j - r>``, (N, N), relative to the update r with the smallest norm.

    The reference drops out of everything that depends on differences only: squared distances, and the norm of any
    combination of updates whose coefficients sum to zero.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        reference = updates[int(np.argmin([_squared_norm(update) for update in updates]))]
        gram = np.zeros((len(updates), len(updates)))
        for columns, block in blocks(updates):
            np.subtract(block, reference[columns], out=block)
            gram += block @ block.T
    return gram


def _squared_norm(update: Vector) -> float:
    squared = float(np.dot(update, update))
    in_range = 1e-30 < squared < 1e30  # of float32; summing float32 in float64 takes six times as long
    return squared if in_range else float(np.einsum("p,p->", update, update, dtype=np.float64))


def squared_distances(gram: Doubles) -> Doubles:
    """Return the squared distances between updates, (N, N), from their Gram matrix.

    Cancellation can leave a tiny number, even a negative one, for equal updates: what is below the resolution of the
    products, 3e-7 of the two norms as a distance, is returned as exactly 0.
    """
    norms = np.diag(gram)
    scale = norms[:, None] + norms
    squared = scale - 2 * gram
    return np.where(squared > RESOLUTION * scale, squared, 0.0)
