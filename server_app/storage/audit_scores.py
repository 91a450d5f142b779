"""Audit scores of a simulation: label audits against the true labels, in ``audit-scores.json`` of the run directory.

They are never part of any message, and never made on real nodes.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tasks.files import replace_file

SCORES = "audit-scores.json"
MEANS = ("given_accuracy", "auc", "precision_at_wrong", "precision_at_10", "precision_at_20")


@dataclass(frozen=True)
class Relabelling:
    """What other labels than the given ones are worth.

    Attributes
    ----------
    right
        Number of right labels among all.
    fixed, damaged
        Number of wrong given labels that become right, and of right ones that become wrong.
    differing, differing_right
        Number of labels that differ from the given ones, and of those among them that are right.
    """

    right: int
    fixed: int
    damaged: int
    differing: int
    differing_right: int


@dataclass(frozen=True)
class Score:
    """One client's list against the truth.

    Attributes
    ----------
    examples, wrong
        Number of examples, and of those whose given label is wrong, or any pixel of the given mask.
    estimated_noise_rate
        Share of the examples that the list says to look at first, as many as seem wrong.
    auc
        Probability that a wrong label stands before a right one; None if there are not both.
    precision_at_wrong, precision_at_10, precision_at_20
        Share of wrong labels among the first lines: as many as there are wrong labels, 10 and 20. The first is None
        where no label is wrong; a shorter list counts in full.
    suggested
        If the client followed all suggestions.
    corrected
        With the labels that the client method changed, and no others; None if it changed none.
    pixels, wrong_pixels
        Number of labelled pixels, and of those with a wrong class, where pixels are labelled: ``suggested`` counts
        pixels then. None where examples are.
    """

    client: int
    examples: int
    wrong: int
    estimated_noise_rate: float
    auc: float | None
    precision_at_wrong: float | None
    precision_at_10: float
    precision_at_20: float
    suggested: Relabelling
    corrected: Relabelling | None
    pixels: int | None = None
    wrong_pixels: int | None = None

    @property
    def noise_rate(self) -> float:
        """Share of the examples whose given label or mask is wrong."""
        return self.wrong / self.examples

    @property
    def labels(self) -> int:
        """Number of labels: of examples, or of pixels."""
        return self.examples if self.pixels is None else self.pixels

    @property
    def wrong_labels(self) -> int:
        """Number of wrong labels among :attr:`labels`."""
        return self.wrong if self.wrong_pixels is None else self.wrong_pixels

    @property
    def given_accuracy(self) -> float:
        """Share of the given labels that are right."""
        return 1 - self.wrong_labels / self.labels


@dataclass(frozen=True)
class Scores:
    """The scores of all clients whose list could be read."""

    clients: tuple[Score, ...]

    @property
    def examples(self) -> int:
        """Number of examples of all clients."""
        return sum(score.examples for score in self.clients)

    @property
    def wrong(self) -> int:
        """Number of examples of all clients whose label or mask is wrong."""
        return sum(score.wrong for score in self.clients)

    @property
    def labels(self) -> int:
        """Number of labels of all clients: of examples, or of pixels."""
        return sum(score.labels for score in self.clients)

    @property
    def wrong_labels(self) -> int:
        """Number of wrong labels of all clients."""
        return sum(score.wrong_labels for score in self.clients)

    @property
    def of_pixels(self) -> bool:
        """Whether pixels are labelled."""
        return any(score.pixels is not None for score in self.clients)

    def mean(self, name: str) -> float | None:
        """Return the mean of a score over the clients that have it."""
        known = [value for score in self.clients if (value := getattr(score, name)) is not None]
        return fmean(known) if known else None

    def rates(self, name: str) -> dict[str, float | None]:
        """Return what all clients' ``suggested`` or ``corrected`` labels together are worth.

        Given labels count where a client has no others. ``accuracy`` is the share of right labels, ``fix_rate`` that of
        the wrong given labels that become right, ``damage_rate`` that of the right ones that become wrong, and
        ``precision`` that of right ones among those that differ; None where there is nothing to divide by.
        """
        known = [(score, found) for score in self.clients if (found := getattr(score, name)) is not None]
        gained = sum(found.fixed - found.damaged for _, found in known)
        differing = sum(found.differing for _, found in known)
        return {
            "accuracy": share(self.labels - self.wrong_labels + gained, self.labels),
            "fix_rate": share(sum(found.fixed for _, found in known), self.wrong_labels),
            "damage_rate": share(sum(found.damaged for _, found in known), self.labels - self.wrong_labels),
            "precision": share(sum(found.differing_right for _, found in known), differing),
        }


def nouns(scores: Scores) -> tuple[str, str]:
    """Return what a list ranks and what a suggestion is about: labels, or masks and their pixels."""
    return ("masks", "pixels") if scores.of_pixels else ("labels", "labels")


def share(part: float, whole: float) -> float | None:
    """Return a part of a whole, None of nothing."""
    return part / whole if whole else None


def write_scores(run_dir: Path, scores: Scores) -> None:
    """Write the scores into a run directory."""
    content: dict[str, Any] = {
        "examples": scores.examples,
        "wrong": scores.wrong,
        "mean_over_clients": {name: scores.mean(name) for name in MEANS},
        "suggested": scores.rates("suggested"),
        "corrected": scores.rates("corrected"),
        "clients": [_entry(score) for score in scores.clients],
    }
    replace_file(run_dir / SCORES, (json.dumps(content, indent=2) + "\n").encode())


def read_scores(content: dict[str, Any]) -> Scores:
    """Return what :func:`write_scores` wrote.

    Raises
    ------
    TypeError, KeyError
        If it is something else.
    """
    return Scores(tuple(_score(entry) for entry in content["clients"]))


def _entry(score: Score) -> dict[str, Any]:
    """Return a score as plain values; what only masks have is left out of that of labels."""
    entry = asdict(score)
    return entry if score.pixels is not None else {k: v for k, v in entry.items() if "pixels" not in k}


def _score(entry: dict[str, Any]) -> Score:
    corrected = entry["corrected"]
    relabelled = {
        "suggested": Relabelling(**entry["suggested"]),
        "corrected": None if corrected is None else Relabelling(**corrected),
    }
    return Score(**{**entry, **relabelled})
