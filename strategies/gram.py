"""The Gram matrix of many updates: every inner product, in one pass over the data and in double precision.

Updates are read in blocks of columns that stay in a core's cache, so no second copy of them ever exists. A product
of two float32 numbers is exact in float64, so what is left is the rounding of the sums: at most about 1e-14 of the two
norms, which are taken from a *reference*, the update with the smallest norm. Subtracting it keeps the differences
between updates that share a large common part, and it can do no harm: as it is the smallest,
``norm(x_i - reference) <= 2 * norm(x_i)`` for every i. The mean would carry a single update of 1e12 into all others.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

Vector = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

BLOCK = 2**18  # numbers in a block: 2 MiB of float64
PARTS = 16  # of the blocks, one core each
TINY = float(np.finfo(np.float64).tiny)
RESOLUTION = 1e-13  # squared distances below this share of the squared norms are rounding


def sum_over_blocks(updates: Sequence[Vector], visit: Callable[[slice, Doubles], Doubles]) -> Doubles:
    """Call ``visit(columns, block)`` for all columns, on several cores, and return the sum of what it returns.

    A block holds every update's values in these columns, (N, B) float64, and may be overwritten. The order of the sums
    does not depend on the number of cores. Each core multiplies on its own: a BLAS that splits each small product
    among all cores takes twenty times as long when another process wants one of them.
    """
    size = len(updates[0])
    width = max(1, BLOCK // len(updates))
    starts = range(0, max(size, 1), width)

    def visit_block(start: int) -> Doubles:
        columns = slice(start, min(start + width, size))
        return visit(columns, np.stack([update[columns] for update in updates], dtype=np.float64))

    def visit_part(part: int) -> Doubles:
        with np.errstate(over="ignore", invalid="ignore"):  # a thread has its own; callers look for inf and nan
            return reduce(np.add, map(visit_block, starts[part::PARTS]))

    workers = min(PARTS, os.cpu_count() or 1)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        return reduce(np.add, pool.map(visit_part, range(min(PARTS, len(starts)))))


def gram_matrix(updates: Sequence[Vector]) -> Doubles:
    """Return all inner products ``<x_i - r, x_j - r>`` relative to the update r with the smallest norm.

    The matrix is (N + 1, N + 1): the last point is the zero update, which is the global model. The reference drops out
    of everything that depends on differences only: squared distances, and the norm of any combination of points whose
    coefficients sum to zero.
    """
    reference = updates[int(np.argmin([_squared_norm(update) for update in updates]))]

    def products(columns: slice, block: Doubles) -> Doubles:
        start = np.asarray(reference[columns], np.float64)
        np.subtract(block, start, out=block)
        to_zero = -(block @ start)
        return np.block([[block @ block.T, to_zero[:, None]], [to_zero, start @ start]])

    return sum_over_blocks(updates, products)


def _squared_norm(update: Vector) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
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


def mixture_distances(gram: Doubles, weights: Doubles) -> Doubles:
    """Return the distances of the mixture ``sum_i w_i x_i`` to the updates, (N,); none is below the resolution."""
    norms, products = gram.diagonal(), gram @ weights
    squared_norm = weights @ products
    scale = norms + squared_norm
    squared = np.maximum(scale - 2 * products, RESOLUTION * scale)
    return np.asarray(np.sqrt(np.maximum(squared, TINY)), np.float64)
