"""How FedCorr's server reads what clients say about their noise; both come from clients and may be anything."""

from collections.abc import Mapping

from tasks.questions import NOISE_LEVEL, SCORE

LARGEST_SCORE = 1e4
"""Largest score that is believed; 0 means that a client has too few examples for one."""


def believable_score(metrics: Mapping[str, float]) -> float | None:
    """Return the mean dimensionality in a client's measures; None if there is none or it cannot be one."""
    score = metrics.get(SCORE, 0.0)
    return score if 0 < score <= LARGEST_SCORE else None


def read_level(answer: Mapping[str, object], examples: int) -> float:
    """Return a client's noise level.

    Raises
    ------
    ValueError
        If it is no number from 0 to 1.
    """
    level = answer.get(NOISE_LEVEL)
    if not isinstance(level, int | float) or isinstance(level, bool) or not 0 <= level <= 1:
        raise ValueError(f"{NOISE_LEVEL} must be a number from 0 to 1, got {level!r}")
    return float(level)


def nothing(answer: Mapping[str, object], examples: int) -> float:
    """Accept an answer that says nothing but that it was done."""
    return 0.0
