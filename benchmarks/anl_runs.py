"""The runs of the ANL benchmark: what decides one, what it gives, and the table of all."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.ledger import spread
from tasks.settings import TrainSettings

LOSSES = ("ce", "nce+rce", "anl-ce", "anl-ce*")
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "clean": (90.38, 90.94, 91.66, 91.52),
    "symmetric-0.8": (19.09, 55.52, 61.27, 61.62),
    "asymmetric-0.4": (73.69, 77.75, 77.63, 81.47),
    "human-worse": (61.43, 79.74, 80.23, 81.16),
}
"""Test accuracy in percent of each of ``LOSSES``, by labels: Ye et al., 2024, Table II, mean over 3 seeds."""


@dataclass(frozen=True)
class Case:
    """All that decides the outcome of one run; the defaults are the paper's."""

    labels: str = "clean"
    loss: str = "ce"
    seed: int = 1
    model: str = "cnn8"
    images: int = 50_000
    test_images: int = 10_000
    epochs: int = 120
    batch_size: int = 128
    learning_rate: float = 0.01
    precision: str = "float32"
    augment: bool = True

    def options(self) -> TrainSettings:
        """Return the settings of one epoch; the ANL losses bring their own L1 in place of weight decay."""
        return TrainSettings(
            optimizer="sgd",
            learning_rate=self.learning_rate,
            momentum=0.9,
            weight_decay=0.0 if self.loss.startswith("anl") else 1e-4,
            schedule="cosine",
            clip_norm=5.0,
            epochs=1,
            batch_size=self.batch_size,
            precision=self.precision,
            augment=self.augment,
        )


@dataclass(frozen=True)
class Outcome:
    """What a run gave: shares in percent, NaN for ``learnt_wrong`` where no label is wrong.

    ``learnt_wrong`` is the share of the wrong labels that the network predicts for their images at the end.
    """

    accuracy: float
    best_accuracy: float
    learnt_wrong: float
    noise_rate: float
    seconds: float


def title(case: Case) -> str:
    """Return the words for a case in messages."""
    return f"{case.labels}, {case.loss}, seed {case.seed}"


def table(runs: Mapping[Case, Outcome]) -> str:
    """Return the published and the measured numbers as Markdown, in percent: mean over seeds, ± standard deviation."""
    lines = ["| labels | | " + " | ".join(LOSSES) + " |", "|---|---|" + "---|" * len(LOSSES)]
    for labels in PUBLISHED:
        found = {loss: [o for c, o in runs.items() if (c.labels, c.loss) == (labels, loss)] for loss in LOSSES}
        if not any(found.values()):
            continue
        rows = {
            "published": [f"{value:.2f}" for value in PUBLISHED[labels]],
            "last epoch": [spread([run.accuracy for run in found[loss]]) for loss in LOSSES],
            "best epoch": [spread([run.best_accuracy for run in found[loss]]) for loss in LOSSES],
            "wrong labels learnt": [spread([run.learnt_wrong for run in found[loss]]) for loss in LOSSES],
        }
        lines += [f"| {labels} | {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)
