"""Paired comparison of two models on the same examples: how often only one of them is right, and what chance explains.

Two models are measured on the same few examples, so what counts are those on which they differ. If neither is better,
each of these is a toss of a coin: the exact sign test, which for right and wrong is McNemar's test (McNemar,
Psychometrika 1947; exact form: Fleiss, Levin, Paik, Statistical Methods for Rates and Proportions, 2003).
"""

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tasks.base import ClientData, Task, predict
from tasks.metrics import IGNORED

Scores = npt.NDArray[np.float64]
SIGNIFICANT = 0.05
MOST_PAIRS = 10_000
"""Beyond so many differing examples the sum of the exact test is longer than anybody needs."""


@dataclass(frozen=True)
class Comparison:
    """A second model compared with a first one.

    Attributes
    ----------
    examples
        On how many examples, at least 1.
    first, second
        Mean share of right labels of an example: the accuracy, if each has one label.
    better, worse
        On how many examples the second model is right where the first is not, and the reverse; of masks, on how many
        more or fewer of its pixels are right.
    """

    examples: int
    first: float
    second: float
    better: int
    worse: int

    @property
    def p_value(self) -> float:
        """Probability of a difference as large as this one, or larger, between models that are equally good."""
        return sign_test(self.better, self.worse)

    @property
    def verdict(self) -> str:
        """Whether the second model is ``better``, ``worse`` or ``not told apart``, at the level of 5 %."""
        if self.p_value >= SIGNIFICANT:
            return "not told apart"
        return "better" if self.better > self.worse else "worse"

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "examples": self.examples,
            "accuracy": round(self.second, 4),
            "only_this_one_right": self.better,
            "only_the_federated_right": self.worse,
            "p_value": round(self.p_value, 4),
            "compared_with_the_federated": self.verdict,
        }


def sign_test(better: int, worse: int) -> float:
    """Return the two-sided p-value of so many differences in each direction; 1 if there are none.

    >>> sign_test(5, 0), sign_test(0, 0)
    (0.0625, 1.0)
    """
    total = better + worse
    if total > MOST_PAIRS:  # continuity-corrected normal approximation, right to many digits there
        from statistics import NormalDist

        return min(1.0, 2 * NormalDist().cdf(-(abs(better - worse) - 1) / total**0.5))
    return min(1.0, sum(comb(total, k) for k in range(min(better, worse) + 1)) / (1 << max(0, total - 1)))


def right_shares(model: nn.Module, task: Task, data: ClientData, batch_size: int, device: torch.device) -> Scores:
    """Return the share of right labels of each example, (n,): 0 or 1, or of its pixels; 1 where none has a label."""
    guesses = predict(model, task, data.features, batch_size, device).argmax(1).numpy()
    right, known = guesses == data.labels, data.labels != IGNORED  # which is no class that could be guessed
    flat = (len(data), -1)
    counted = known.reshape(flat).sum(1)
    shares: Scores = np.where(counted, right.reshape(flat).sum(1) / np.maximum(counted, 1), 1.0)
    return shares


def compare(first: Scores, second: Scores) -> Comparison:
    """Compare two models by their :func:`right_shares` of the same examples."""
    better, worse = int((second > first).sum()), int((second < first).sum())
    return Comparison(len(first), float(first.mean()), float(second.mean()), better, worse)
