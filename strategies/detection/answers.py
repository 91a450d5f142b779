"""Answers to the question about losses under the models of several rounds, and one profile a client from them.

Shapes: A answers, N clients, K classes. Answers are a dictionary of arrays, which a checkpoint can hold: ``rounds``
(A,), the round whose question is answered, ``clients`` (A,), ``losses`` (A, K) and ``counts`` (A, K).
"""

from collections.abc import Mapping

import numpy as np

from strategies.detection.base import Counts, Doubles
from tasks.wire import Arrays


def no_answers() -> Arrays:
    """Return a table without rows."""
    whole, table = np.zeros(0, np.int64), np.zeros((0, 0))
    return {"rounds": whole, "clients": whole, "losses": table, "counts": table.astype(np.int64)}


def answers_since(answers: Arrays, first: int) -> Arrays:
    """Return the answers to the questions of round ``first`` and later."""
    recent = np.asarray(answers["rounds"], np.int64) >= first
    return {name: rows[recent] for name, rows in answers.items()}


def with_answers(answers: Arrays, server_round: int, found: Mapping[int, tuple[Doubles, Counts]]) -> Arrays:
    """Return the answers and, behind them, those found in a round: losses and counts (K,) of each client."""
    if not found:
        return answers
    clients = np.array(list(found), np.int64)
    losses, counts = (np.stack(tables) for tables in zip(*found.values(), strict=True))
    new = {"rounds": np.full_like(clients, server_round), "clients": clients, "losses": losses, "counts": counts}
    if not len(answers["rounds"]):
        return new
    return {name: np.concatenate([answers[name], rows]) for name, rows in new.items()}


def mean_profiles(answers: Arrays) -> tuple[Counts, Doubles, Counts]:
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
    losses, counts = np.asarray(answers["losses"], np.float64), np.asarray(answers["counts"], np.int64)
    asked, row = np.unique(answers["rounds"], return_inverse=True)
    totals = _summed(counts.astype(np.float64), row, len(asked))
    means = _summed(counts * losses, row, len(asked)) / np.maximum(totals, 1)
    level = losses + (means.mean(axis=0) - means)[row] if len(asked) else losses
    clients, row, times = np.unique(np.asarray(answers["clients"], np.int64), return_inverse=True, return_counts=True)
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
