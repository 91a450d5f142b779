"""Gram matrix of many updates, every inner product in one pass and in double precision, and the update matrix.

Updates are read in blocks of columns that stay in a core's cache, so no second copy of them ever exists. A product
of two float32 numbers is exact in float64, so what is left is the rounding of the sums: at most about 1e-14 of the two
norms, which are taken from a *reference*, the update with the smallest norm. Subtracting it keeps the differences
between updates that share a large common part, and it can do no harm: as it is the smallest,
``norm(x_i - reference) <= 2 * norm(x_i)`` for every i. The mean would carry a single update of 1e12 into all others.

The update matrix is what an aggregator sees of a round; its rows are the updates. An aggregator asks for inner
products, for one tensor after the other, or for the roles of the clients. A pre-aggregator replaces the rows by
mixtures of them; these are kept as the matrix of their coefficients, so that their inner products follow from those of
the updates, and their values are made block by block.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, reduce
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from strategies.spool import page_release

Vector = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

BLOCK = 2**18  # numbers in a block: 2 MiB of float64
PARTS = 16  # of the blocks, one core each
TINY = float(np.finfo(np.float64).tiny)
RESOLUTION = 1e-13  # squared distances below this share of the squared norms are rounding
LARGEST = 1e150  # sums of squares of larger values overflow float64


@cache
def blas() -> ThreadpoolController:
    """Return the process's BLAS, to limit its threads; to look for it takes longer than a sum of small updates."""
    return ThreadpoolController().select(user_api="blas")


def sum_over_blocks(updates: Sequence[Vector], visit: Callable[[slice, Doubles], Doubles]) -> Doubles:
    """Call ``visit(columns, block)`` for all columns, on several cores, and return the sum of what it returns.

    A block holds every update's values in these columns, (N, B) float64, and may be overwritten. The order of the sums
    does not depend on the number of cores. Each core multiplies on its own: a BLAS that splits each small product
    among all cores takes twenty times as long when another process wants one of them.
    """
    size = len(updates[0])
    width = max(1, BLOCK // len(updates))
    starts = range(0, max(size, 1), width)
    release = page_release(updates)

    def visit_block(start: int) -> Doubles:
        columns = slice(start, min(start + width, size))
        found = visit(columns, np.stack([update[columns] for update in updates], dtype=np.float64))
        release(columns)
        return found

    def visit_part(part: int) -> Doubles:
        with np.errstate(over="ignore", invalid="ignore"):  # a thread has its own; callers look for inf and nan
            return reduce(np.add, map(visit_block, starts[part::PARTS]))

    workers = min(PARTS, os.cpu_count() or 1)
    with blas().limit(limits=1), ThreadPoolExecutor(workers) as pool:
        return reduce(np.add, pool.map(visit_part, range(min(PARTS, len(starts)))))


def gram_matrix(updates: Sequence[Vector]) -> Doubles:
    """Return all inner products ``<x_i - r, x_j - r>`` relative to the update r with the smallest norm.

    The matrix is (N + 1, N + 1): the last row is the zero update, which is the global model. The reference drops out
    of everything that depends on differences only: squared distances, and the norm of any combination of updates whose
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
        squared = squared if in_range else float(np.einsum("p,p->", update, update, dtype=np.float64))
    page_release([update])(slice(0, len(update)))
    return squared


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


@dataclass(frozen=True)
class UpdateMatrix:
    """The updates of a round as rows: N updates, or M mixtures of them.

    ``vectors`` are N updates (P,); ``sizes`` the lengths of the tensors that lie one after the other in each of them;
    ``roles`` what each client is known to be (clean, noisy, unknown); ``seed`` decides what a pre-aggregator draws;
    ``clients`` are their ids. An aggregator adds to ``remarks`` what the report of the round must say.
    ``buffers`` are each client's buffers of floats, such as BatchNorm statistics, if the aggregator measures them.
    ``mixtures`` (M, N + 1) are the coefficients of each row, the last one that of the global model; they sum to 1.
    """

    vectors: Sequence[Vector]
    sizes: tuple[int, ...] = ()
    roles: tuple[str, ...] = ()
    seed: int = 0
    mixtures: Doubles | None = None
    clients: tuple[int, ...] = ()
    buffers: tuple[Sequence[npt.NDArray[Any]], ...] = ()
    remarks: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.vectors) if self.mixtures is None else len(self.mixtures)

    @cached_property
    def gram(self) -> Doubles:
        """Inner products of all rows and, last, the global model: (M + 1, M + 1), relative to a common reference.

        Raises
        ------
        ValueError
            If an update has values that are not finite or too large.
        """
        gram = gram_matrix(self.vectors)
        if not np.isfinite(gram).all():
            raise not_finite(self.vectors)
        return gram

    def mixed(self, coefficients: Doubles) -> "UpdateMatrix":
        """Return the matrix of new rows, (L, M + 1) ``coefficients`` of the present ones and the global model."""
        corner = _with_global_model(coefficients)
        before = np.eye(len(self.vectors) + 1) if self.mixtures is None else _with_global_model(self.mixtures)
        matrix = replace(self, mixtures=coefficients @ before)
        matrix.__dict__["gram"] = corner @ self.gram @ corner.T  # what cached_property would store
        return matrix

    def values(self, block: Doubles) -> Doubles:
        """Return the values of the rows, (M, B), where those of the updates are ``block`` (N, B)."""
        return block if self.mixtures is None else self.mixtures[:, :-1] @ block

    def tensors(self) -> Iterator[tuple[slice, "UpdateMatrix"]]:
        """Yield each tensor's place in the vectors, and the matrix of that tensor alone."""
        ends = np.cumsum([0, *(self.sizes or [len(self.vectors[0])])])
        for start, stop in pairwise(ends.tolist()):
            columns = slice(start, stop)
            alone = replace(self, vectors=[vector[columns] for vector in self.vectors], sizes=(), mixtures=None)
            yield columns, alone if self.mixtures is None else alone.mixed(self.mixtures)


def _with_global_model(coefficients: Doubles) -> Doubles:
    """Return the coefficients with a last row for the global model, which every pre-aggregator leaves where it is."""
    return np.vstack([coefficients, np.eye(coefficients.shape[1])[-1]])


def not_finite(updates: Sequence[Vector], name: str = "the aggregator") -> ValueError:
    """Return the error that names the updates to blame, or the aggregator if there are none."""
    broken = [i for i, update in enumerate(updates) if not float(np.abs(update).max(initial=0)) < LARGEST]
    if not broken:
        return ValueError(f"{name} returned values that are not finite")
    return ValueError(
        f"updates {broken} have values that are not finite, or above {LARGEST:g}; set them aside before aggregating"
    )
