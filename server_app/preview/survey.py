"""The data of every client in numbers."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.noise import NoiseWarning, obeys_law
from tasks.settings import Settings
from tasks.shares import Share, client_share, federated_noise, load_task

Counts = npt.NDArray[np.int64]
Rates = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    """What N clients hold of K classes.

    Attributes
    ----------
    settings
        The settings that the data follows from.
    class_names
        The K classes.
    examples
        Examples of each client, (N,).
    counts
        How many labels of each true class a client has, before the noise, (N, K). Masks have a label a pixel.
    realised
        Share of each client's given labels that are wrong, (N,).
    wanted
        Rate that the noise law gives to each client, (N,), or None for a noise that takes no rate.
    transitions
        How often a label of true class i is given as j, (K, K), with one more row if examples come from outside.
    """

    settings: Settings
    class_names: tuple[str, ...]
    examples: Counts
    counts: Counts
    realised: Rates
    wanted: Rates | None
    transitions: Counts

    @property
    def overall(self) -> float:
        """Share of all given labels that are wrong."""
        return float(np.average(self.realised, weights=self.examples))

    @property
    def transition_matrix(self) -> Rates:
        """Share of the labels of true class i that are given as j, shaped like ``transitions``; 0 for an empty row."""
        totals = self.transitions.sum(axis=1, keepdims=True)
        return np.asarray(self.transitions / np.maximum(totals, 1))

    @property
    def row_names(self) -> tuple[str, ...]:
        """Names of the rows of ``transitions``."""
        return (*self.class_names, "(outside)")[: len(self.transitions)]


def take_survey(settings: Settings) -> Survey:
    """Build the share of every client and count.

    Raises
    ------
    DataError, NoiseError, PartitionError
        If the data cannot be read, or does not fit the partition or the noise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoiseWarning)  # the checks of the configuration say it once
        shares = [client_share(settings, client) for client in range(settings.federation.num_clients)]
        wanted = federated_noise(settings).rates() if obeys_law(settings.noise.name) else None
    names = load_task(settings.task).class_names
    return Survey(
        settings=settings,
        class_names=tuple(names),
        examples=np.array([len(share.data) for share in shares]),
        counts=np.stack([_class_counts(share.true_labels, len(names)) for share in shares]),
        realised=np.array([share.noise_rate for share in shares]),
        wanted=wanted,
        transitions=_transitions(shares, len(names)),
    )


def _class_counts(labels: Counts, num_classes: int) -> Counts:
    known = labels[(labels >= 0) & (labels < num_classes)]  # a mask may have pixels of no class
    return np.bincount(known, minlength=num_classes).astype(np.int64)


def _transitions(shares: list[Share], num_classes: int) -> Counts:
    outside = num_classes
    counts = np.zeros((num_classes + 1, num_classes), dtype=np.int64)
    for share in shares:
        true, given = share.true_labels.copy(), share.data.labels
        true[share.replaced] = outside
        known = (true >= 0) & (given >= 0) & (given < num_classes)
        np.add.at(counts, (true[known], given[known]), 1)
    return counts if counts[outside].any() else counts[:outside]
