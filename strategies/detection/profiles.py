"""Loss profiles: which answers of clients are sound, what they say when classes are missing, and their means.

A client may answer under the models of several rounds; :func:`mean_profiles` makes one profile a client from that.

Shapes: A answers, N clients, K classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from strategies.detection.base import Counts
from strategies.gram import Doubles
from tasks.protocol import Arrays

LOSSES, COUNTS = "class-losses", "class-counts"
LARGEST_LOSS = 1e6
"""Largest mean cross-entropy that is believed, in nats."""
HALF_OF_CHI2 = 0.4549
"""Median of the chi-squared distribution with one degree of freedom."""


def read_profile(answer: Mapping[str, object], examples: int) -> tuple[Doubles, Counts]:
    """Return a client's mean losses and counts, (K,) each, from its answer.

    Parameters
    ----------
    answer
        What the client sent: ``class-losses`` and ``class-counts``, lists of K numbers.
    examples
        Number of examples that the client has.

    Raises
    ------
    ValueError
        If one is missing, no list of finite nonnegative numbers, of another length than the other, or the counts do
        not add up to ``examples``.
    """
    losses, counts = answer.get(LOSSES), answer.get(COUNTS)
    if not isinstance(losses, list) or not isinstance(counts, list) or not 0 < len(losses) == len(counts):
        raise ValueError(f"expected {LOSSES} and {COUNTS}, one number of each for every class")
    if not all(type(count) is int and 0 <= count <= examples for count in counts) or sum(counts) != examples:
        raise ValueError(f"{COUNTS} must be whole numbers that add up to its {examples} examples")
    if not all(type(loss) in (int, float) and math.isfinite(loss) and 0 <= loss <= LARGEST_LOSS for loss in losses):
        raise ValueError(f"{LOSSES} must be finite numbers from 0 to {LARGEST_LOSS:g}")
    return np.array(losses, np.float64), np.array(counts, np.int64)


def min_max(losses: Doubles, counts: Counts) -> Doubles:
    """Return the losses (N, K) scaled to [0, 1] class by class; a missing one counts as the lowest of its class.

    A class that is the same for all clients, or that nobody has, is 0. This is how the authors' codes prepare a
    profile (Wu et al., IJCAI 2023; Jiang et al., CIKM 2024).
    """
    present = counts > 0
    lowest = np.where(present, losses, np.inf).min(axis=0)
    filled = np.where(present, losses, np.where(np.isfinite(lowest), lowest, 0.0))
    spread = np.ptp(filled, axis=0)
    scaled: Doubles = (filled - filled.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    return scaled


def client_levels(losses: Doubles, counts: Counts) -> tuple[Doubles, float]:
    """Return how much higher each client's mean loss is than its mixture of classes explains.

    Least squares over all examples of loss_kc = level_k + class_c: a client with many examples of a hard class is not
    noisy for that. What is missing has no weight, so nothing is made up for it. Each class effect is shrunk towards 0
    as if one more client of average size had none, which keeps the solution unique where clients share no class.

    Returns
    -------
    levels
        (N,), in nats, up to a constant.
    error
        Standard error of a level by chance alone, over clients: from the median of what the fit leaves unexplained at
        the lower half of the clients, because wrong labels also make losses less even.
    """
    weights = counts.astype(np.float64)
    sizes, totals = weights.sum(axis=1), weights.sum(axis=0)
    means = (weights * losses).sum(axis=1) / sizes
    normal = np.diag(totals + weights.mean()) - weights.T @ (weights / sizes[:, None])
    classes = np.linalg.solve(normal, (weights * losses).sum(axis=0) - weights.T @ means)
    levels: Doubles = means - weights @ classes / sizes
    present = counts > 0
    cells = int(np.count_nonzero(present))
    free = cells - len(levels) - np.count_nonzero(totals) + 1
    if free < 1:  # as many effects as cells: the fit leaves nothing
        return levels, 0.0
    squares = weights * (losses - levels[:, None] - classes) ** 2
    lower = levels <= np.median(levels)
    variance = np.median(squares[lower][present[lower]]) / HALF_OF_CHI2 * cells / free
    return levels, float(np.sqrt(variance * np.mean(1 / sizes)))


@dataclass(frozen=True, eq=False)
class ProfileAnswer:
    """A client's losses (K,) and example counts (K,) by class under the model of one round.

    ``rate`` is the share of wrong labels that it estimates; NaN if it was not asked.
    """

    server_round: int
    client: int
    losses: Doubles
    counts: Counts
    rate: float = math.nan


def answers_of(
    server_round: int, found: Mapping[int, tuple[Doubles, Counts] | tuple[Doubles, Counts, float]]
) -> list[ProfileAnswer]:
    """Return the answers found in a round: losses and counts (K,) of each client, and its noise rate if asked."""
    return [ProfileAnswer(server_round, client, *profile) for client, profile in found.items()]


def to_table(answers: Sequence[ProfileAnswer]) -> Arrays:
    """Return answers as one array a column: ``rounds``, ``clients``, ``rates`` (A,), ``losses``, ``counts`` (A, K)."""
    rows, classes = len(answers), len(answers[0].losses) if answers else 0
    return {
        "rounds": np.array([answer.server_round for answer in answers], np.int64),
        "clients": np.array([answer.client for answer in answers], np.int64),
        "losses": np.array([answer.losses for answer in answers], np.float64).reshape(rows, classes),
        "counts": np.array([answer.counts for answer in answers], np.int64).reshape(rows, classes),
        "rates": np.array([answer.rate for answer in answers], np.float64),
    }


def from_table(table: Arrays) -> list[ProfileAnswer]:
    """Return the answers in a table; the inverse of :func:`to_table`. A table of an older version has no rates."""
    rounds, clients = table["rounds"].tolist(), table["clients"].tolist()
    losses, counts = np.asarray(table["losses"], np.float64), np.asarray(table["counts"], np.int64)
    rates = table["rates"].tolist() if "rates" in table else [math.nan] * len(rounds)
    return [ProfileAnswer(*row) for row in zip(rounds, clients, losses, counts, rates, strict=True)]


def mean_profiles(answers: Sequence[ProfileAnswer]) -> tuple[Counts, Doubles, Counts]:
    """Return each client's mean answer; of one round the answers themselves.

    All clients are compared over the same models, which cancels what the models differ in. For a client that missed
    a question every model's mean loss on a class is first moved to the mean over models, so it is not judged by which
    question it missed. Who answered fewer than half of the questions is left out.

    Returns
    -------
    clients
        (N,), in ascending order.
    losses, counts
        (N, K) each; of differing counts the largest.
    """
    table = to_table(answers)
    losses, counts = np.asarray(table["losses"], np.float64), np.asarray(table["counts"], np.int64)
    asked, row = np.unique(table["rounds"], return_inverse=True)
    totals = _summed(counts.astype(np.float64), row, len(asked))
    means = _summed(counts * losses, row, len(asked)) / np.maximum(totals, 1)
    level = losses + (means.mean(axis=0) - means)[row] if len(asked) else losses
    clients, row, times = np.unique(np.asarray(table["clients"], np.int64), return_inverse=True, return_counts=True)
    known = _summed((counts > 0).astype(np.float64), row, len(clients))
    averages = _summed(np.where(counts > 0, level, 0.0), row, len(clients)) / np.maximum(known, 1)
    most = np.zeros(averages.shape, np.int64)
    np.maximum.at(most, row, counts)
    enough = 2 * times >= len(asked)
    return clients[enough], averages[enough], most[enough]


def _summed(table: Doubles, row: Counts, rows: int) -> Doubles:
    """Return the sums (rows, K) of those lines of a table (A, K) that belong to the same row."""
    sums = np.zeros((rows, table.shape[1]))
    np.add.at(sums, row, table)
    return sums
