"""Aggregation of updates: an aggregator applied in two passes over them, block by block, in double precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from strategies.aggregators.base import Aggregator, Combine
from strategies.gram import Doubles, UpdateMatrix, Vector, blas, not_finite, sum_over_blocks

Value = TypeVar("Value")


@dataclass(frozen=True)
class Aggregate:
    """The combined update ``value`` (P,), in the precision of the updates, and how it relates to each client.

    ``weights`` (N,) are nonnegative and sum to 1, or to less where the rest lies on the global model; None where a
    client has no single weight. ``distances`` (N,) are the Euclidean distances of the updates to ``value``. ``remarks``
    say what the aggregator did in another way than usual, in words.
    """

    value: Vector
    weights: Doubles | None
    distances: Doubles
    remarks: tuple[str, ...] = ()


def aggregate(
    aggregator: Aggregator,
    updates: Sequence[Vector],
    client_weights: npt.ArrayLike,
    *,
    sizes: Sequence[int] = (),
    roles: Sequence[str] = (),
    clients: Sequence[int] = (),
    seed: int = 0,
    buffers: Sequence[Sequence[npt.NDArray[Any]]] = (),
) -> Aggregate:
    """Combine client updates into one.

    Parameters
    ----------
    aggregator
        What combines them.
    updates
        N vectors (P,), float32 or float64: client model minus global model, in a fixed order of the clients.
    client_weights
        N nonnegative weights, for instance example counts; they are divided by their sum. An update with a weight of 0
        does not count: the result is what it would be without it.
    sizes
        Lengths of the tensors in each update, for aggregators that treat each on its own; empty = one tensor.
    roles
        What each client is known to be: clean, noisy or unknown; empty = all unknown.
    clients
        Ids of the clients, for aggregators that trust one of them; empty = 0 to N - 1.
    seed
        Decides what an aggregator or a pre-aggregator draws.
    buffers
        Buffers of floats of each client, for aggregators that measure them; they are not combined here.

    Raises
    ------
    ValueError
        If there are too few updates for the aggregator, or not the one that it trusts; if updates and weights do not
        fit together, are not finite or above 1e150; or if your own aggregator returns something that does not fit.
    """
    _check_updates(updates, sizes)
    shares = _normalized(client_weights, len(updates))
    counted = np.flatnonzero(shares)
    known, ids = roles or ("unknown",) * len(updates), clients or range(len(updates))
    own_roles, own_ids = _chosen(known, counted), _chosen(ids, counted)
    matrix = UpdateMatrix(
        _chosen(updates, counted), tuple(sizes), own_roles, seed, clients=own_ids, buffers=_chosen(buffers, counted)
    )
    if problem := aggregator.problem(len(counted)) or aggregator.missing(matrix.clients):
        raise ValueError(problem)
    with blas().limit(limits=1):  # N x N matrices: waiting for other threads costs more than they save
        combine, chosen = aggregator.prepare(matrix, shares[counted])
    everybody = len(counted) == len(updates)
    value, distances = _sweep(
        updates, combine if everybody else lambda columns, block: combine(columns, block[counted]), str(aggregator)
    )
    if not np.isfinite(distances).all():
        raise not_finite(updates, str(aggregator))
    weights = np.zeros(len(updates))
    weights[counted] = 0 if chosen is None else chosen
    return Aggregate(value, None if chosen is None else weights, distances, tuple(matrix.remarks))


def _chosen(values: Sequence[Value], places: npt.NDArray[np.intp]) -> tuple[Value, ...]:
    return tuple(values[int(place)] for place in places) if values else ()


def _sweep(updates: Sequence[Vector], combine: Combine, name: str) -> tuple[Vector, Doubles]:
    """Combine block by block, and measure each update's distance to the result in the same pass."""
    double = any(update.dtype == np.float64 for update in updates)
    value: Vector = np.empty(len(updates[0]), np.float64 if double else np.float32)

    def visit(columns: slice, block: Doubles) -> Doubles:
        block.flags.writeable = False  # an aggregator that sorts in place would spoil the distances
        combined = np.asarray(combine(columns, block))
        block.flags.writeable = True
        if combined.shape != block.shape[1:]:
            raise ValueError(f"{name} must return {block.shape[1:]} values for {block.shape}, got {combined.shape}")
        value[columns] = combined
        np.subtract(block, value[columns], out=block)
        return np.asarray(np.einsum("nb,nb->n", block, block), np.float64)

    squared = sum_over_blocks(updates, visit)
    return value, np.sqrt(squared)


def _check_updates(updates: Sequence[Vector], sizes: Sequence[int]) -> None:
    if not len(updates):
        raise ValueError("expected at least one update, got none")
    for i, update in enumerate(updates):
        if update.ndim != 1 or update.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"update {i}: expected a float32 or float64 vector, got {update.dtype} of shape {update.shape}"
            )
        if len(update) != len(updates[0]):
            raise ValueError(f"update {i} has {len(update)} values, but update 0 has {len(updates[0])}")
    if sizes and sum(sizes) != len(updates[0]):
        raise ValueError(f"the tensors have {sum(sizes)} values, but the updates {len(updates[0])}")


def _normalized(client_weights: npt.ArrayLike, num_clients: int) -> Doubles:
    shares = np.asarray(client_weights, np.float64)
    if shares.shape != (num_clients,):
        raise ValueError(f"expected one client weight for each of {num_clients} updates, got shape {shares.shape}")
    with np.errstate(over="ignore"):
        total = shares.sum()
    if not np.isfinite(total) or (shares < 0).any() or total == 0:
        raise ValueError(f"client weights must be finite, also in sum, nonnegative and not all 0, got {shares}")
    return np.asarray(shares / total, np.float64)
