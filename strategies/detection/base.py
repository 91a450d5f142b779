"""Detector base class: loss profiles of N clients in, who has many wrong labels out. No Flower, no models.

A profile is the mean cross-entropy of a client's examples with each given label, under a model that all have trained.
Shapes: N clients, K classes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strategies.gram import Doubles
from tasks.plugins import Registry

Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

FEWEST_CLIENTS = 4
"""Fewest clients that can be called two groups."""


@dataclass(frozen=True)
class Detection:
    """Who is called noisy.

    ``posterior`` (N,) is each client's probability of belonging to the noisy group, ``noisy`` (N,) the decision,
    ``components`` the number of groups that were found, and ``reason`` says in words how that was decided.
    """

    posterior: Doubles
    noisy: Flags
    components: int
    reason: str


class Detector(ABC):
    """Divides clients into clean and noisy ones. Derive your own and name it ``package.module:Name``."""

    @abstractmethod
    def divide(self, losses: Doubles, counts: Counts) -> Detection:
        """Return who is noisy.

        Parameters
        ----------
        losses
            Mean cross-entropy per client and given label in nats, (N, K); 0 where the client has no such label.
        counts
            Number of examples behind each mean, (N, K); every client has at least one, and N is at least 4.
        """


class RateDetector(Detector):
    """A detector that also looks at the noise rates that clients estimate for themselves; only then are they asked."""

    @abstractmethod
    def divide(self, losses: Doubles, counts: Counts, rates: Doubles | None = None) -> Detection:
        """Return who is noisy; see :class:`Detector`.

        ``rates`` (N,) are estimated shares of wrong labels, 0 to 1; :func:`detect` refuses to go without them. There
        may be any number of clients.
        """


DETECTORS = Registry("detector", Detector)


def detect(detector: Detector, losses: Doubles, counts: Counts, rates: Doubles | None = None) -> Detection:
    """Return who is noisy; nobody is if there are too few clients to tell two groups apart.

    Raises
    ------
    ValueError
        If losses and counts do not fit together, a client has no example, or the detector needs ``rates`` (N,) that
        are not there or not from 0 to 1.
    """
    if losses.ndim != 2 or losses.shape != counts.shape:
        raise ValueError(f"expected two tables (N, K), got {losses.shape} and {counts.shape}")
    if (counts < 0).any() or (counts.sum(1) == 0).any():
        raise ValueError("expected counts of at least 0, and at least one example of each client")
    if isinstance(detector, RateDetector):
        if rates is None or rates.shape != losses.shape[:1] or not ((rates >= 0) & (rates <= 1)).all():
            raise ValueError(f"expected the noise rate of each of {len(losses)} clients, from 0 to 1, got {rates}")
        return detector.divide(np.where(counts > 0, losses, 0.0), counts, rates)
    if len(losses) < FEWEST_CLIENTS:
        return one_group(len(losses), f"{len(losses)} clients: two groups need at least {FEWEST_CLIENTS}")
    found = detector.divide(np.where(counts > 0, losses, 0.0), counts)
    assert found.posterior.shape == found.noisy.shape == (len(losses),), "one posterior and one decision a client"
    return found


def one_group(clients: int, reason: str) -> Detection:
    """Return that nobody is noisy."""
    return Detection(np.zeros(clients), np.zeros(clients, bool), 1, reason)
