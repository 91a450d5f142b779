"""Profile reports: what clients say while they train, each in its turn and about another model, made comparable.

A client that trains anyway can report its loss profile under the model that it receives, for one pass over its data and
no further message. Losses under different models cannot be compared; but where clients take turns each is as long away
from its last training as any other, and from round to round losses follow a trend that is common to all. Each class has
a loss of its own and all have one trend over the rounds, fitted by least squares as if clients did not differ; without
the trend the reports of one turn are one profile a client. Clients whose turn comes together count against each other,
so a round should not be reserved for a kind of client; round-robin order is random.

Shapes: A answers, N clients, K classes.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from strategies.detection.base import Counts
from strategies.detection.profiles import ProfileAnswer, read_profile
from strategies.gram import Doubles
from tasks.protocol import NOISE_RATE

Profile = tuple[Doubles, Counts, float]
"""Losses and counts (K,) of a client, and its noise rate."""


def read_noise_rate(answer: Mapping[str, object]) -> float:
    """Return the share of wrong labels that a client estimates.

    Raises
    ------
    ValueError
        If it is missing or no number from 0 to 1.
    """
    rate = answer.get(NOISE_RATE)
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate <= 1:
        raise ValueError(f"{NOISE_RATE} must be a number from 0 to 1, got {rate!r}")
    return float(rate)


def read_report(answer: Mapping[str, object], examples: int, with_rate: bool = False) -> Profile:
    """Return a client's losses and counts, (K,) each, and the noise rate that it estimates; NaN without ``with_rate``.

    Raises
    ------
    ValueError
        As :func:`read_profile` and :func:`read_noise_rate` do.
    """
    return *read_profile(answer, examples), read_noise_rate(answer) if with_rate else math.nan


def latest(answers: Sequence[ProfileAnswer], after: int) -> list[ProfileAnswer]:
    """Return each client's last answer about a model of a round later than ``after``, by client in ascending order.

    Answers with another number of classes than most are left out.
    """
    sizes = Counter(len(answer.losses) for answer in answers).most_common(1)
    usual = [answer for answer in answers if len(answer.losses) == sizes[0][0]]
    ordered = sorted(usual, key=lambda answer: answer.server_round)
    last = {answer.client: answer for answer in ordered if answer.server_round > after}
    return [last[client] for client in sorted(last)]


def without_trend(answers: Sequence[ProfileAnswer]) -> tuple[Counts, Doubles, Counts]:
    """Return each client's profile from one answer of each, about models of several rounds.

    The model is loss_ac = class_c + slope x round_a, weighted by the counts; slope x round is taken from the losses, up
    to its mean. Where all answers are about one model they stay as they are, to the last bit.

    Returns
    -------
    clients
        (N,), in the order of ``answers``.
    losses, counts
        (N, K) each.
    """
    clients = np.array([answer.client for answer in answers], np.int64)
    classes = len(answers[0].losses) if answers else 0
    losses = np.array([answer.losses for answer in answers], np.float64).reshape(len(answers), classes)
    counts = np.array([answer.counts for answer in answers], np.int64).reshape(losses.shape)
    rounds = np.array([answer.server_round for answer in answers], np.float64)
    if len(set(rounds.tolist())) < 2:
        return clients, losses, counts
    weights = counts.astype(np.float64)
    away = rounds - np.average(rounds, weights=weights.sum(axis=1))
    totals = np.maximum(weights.sum(axis=0), 1)
    # Least squares with a mean for each class: regress what is left of losses on what is left of rounds.
    left_losses = losses - (weights * losses).sum(axis=0) / totals
    left_rounds = away[:, None] - (weights * away[:, None]).sum(axis=0) / totals
    spread = float((weights * left_rounds**2).sum())
    slope = float((weights * left_rounds * left_losses).sum()) / spread if spread > 0 else 0.0
    return clients, np.where(counts > 0, losses - slope * away[:, None], 0.0), counts


def mean_rates(answers: Sequence[ProfileAnswer], clients: Counts) -> Doubles:
    """Return the mean of the noise rates that each of ``clients`` (N,) has answered, (N,); NaN where there is none."""
    own: dict[int, list[float]] = {int(client): [] for client in clients}
    for answer in answers:
        if answer.client in own and not math.isnan(answer.rate):
            own[answer.client].append(answer.rate)
    return np.array([float(np.mean(rates)) if rates else math.nan for rates in own.values()], np.float64)
