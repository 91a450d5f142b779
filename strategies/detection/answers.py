"""Answers to the question about losses under the models of several rounds, and one profile a client from them.

Shapes: A answers, N clients, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from strategies.detection.base import Counts, Doubles
from tasks.wire import Arrays


@dataclass(frozen=True, eq=False)
class ProfileAnswer:
    """A client's losses (K,) and example counts (K,) by class under the model of one round."""

    server_round: int
    client: int
    losses: Doubles
    counts: Counts


def answers_of(server_round: int, found: Mapping[int, tuple[Doubles, Counts]]) -> list[ProfileAnswer]:
    """Return the answers found in a round: losses and counts (K,) of each client."""
    return [ProfileAnswer(server_round, client, *profile) for client, profile in found.items()]


def to_table(answers: Sequence[ProfileAnswer]) -> Arrays:
    """Return answers as one array a column: ``rounds`` and ``clients`` (A,), ``losses`` and ``counts`` (A, K)."""
    rows, classes = len(answers), len(answers[0].losses) if answers else 0
    return {
        "rounds": np.array([answer.server_round for answer in answers], np.int64),
        "clients": np.array([answer.client for answer in answers], np.int64),
        "losses": np.array([answer.losses for answer in answers], np.float64).reshape(rows, classes),
        "counts": np.array([answer.counts for answer in answers], np.int64).reshape(rows, classes),
    }


def from_table(table: Arrays) -> list[ProfileAnswer]:
    """Return the answers in a table; the inverse of :func:`to_table`."""
    rounds, clients = table["rounds"].tolist(), table["clients"].tolist()
    losses, counts = np.asarray(table["losses"], np.float64), np.asarray(table["counts"], np.int64)
    return [ProfileAnswer(*row) for row in zip(rounds, clients, losses, counts, strict=True)]


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
    told = _summed((counts > 0).astype(np.float64), row, len(clients))
    averages = _summed(np.where(counts > 0, level, 0.0), row, len(clients)) / np.maximum(told, 1)
    most = np.zeros(averages.shape, np.int64)
    np.maximum.at(most, row, counts)
    enough = 2 * times >= len(asked)
    return clients[enough], averages[enough], most[enough]


def _summed(table: Doubles, row: Counts, rows: int) -> Doubles:
    """Return the sums (rows, K) of those lines of a table (A, K) that belong to the same row."""
    sums = np.zeros((rows, table.shape[1]))
    np.add.at(sums, row, table)
    return sums
