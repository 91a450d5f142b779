"""Differential privacy, central: the plain mean inside one of Flower's wrappers, so that these keep their promise.

Fixed clipping: Geyer, Klein, Nabi 2017; McMahan, Ramage, Talwar, Zhang, ICLR 2018. Adaptive clipping: Andrew, Thakkar,
McMahan, Ramaswamy, NeurIPS 2021. What Flower does differently from the papers is put right from outside:

- The noise is made for the number of clients that were asked; here it follows the replies that are averaged.
- The adaptive wrappers move the clipping norm before they draw the noise for it, and away from the quantile.
- The wrappers divide by the norm of an update, so that a client that sends its model back unchanged would end the run,
  and trust clients that should clip to have done so. Here both are checked, and such a reply is set aside.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    Strategy,
)

from strategies.base import FlowerStrategyAdapter
from strategies.robust import RobustStrategy
from strategies.validation import ReplyError, RoundReport, Update
from tasks.protocol import Arrays
from tasks.settings import PrivacySettings

NORM_BIT = "norm_bit"  # Flower's name for whether an update had to be clipped


class _NormAfterNoise:
    """Keeps the noisy share of clipped updates instead of moving the clipping norm at once."""

    clipped_share = 0.0

    def _geometric_update(self, clipped_fraction: float) -> None:
        self.clipped_share = clipped_fraction


class ServerSideAdaptive(_NormAfterNoise, DifferentialPrivacyServerSideAdaptiveClipping):
    """Flower's wrapper; the clipping norm of a round holds until its noise is drawn."""


class ClientSideAdaptive(_NormAfterNoise, DifferentialPrivacyClientSideAdaptiveClipping):
    """Flower's wrapper; the clipping norm of a round holds until its noise is drawn."""


Adaptive = ServerSideAdaptive | ClientSideAdaptive
Fixed = DifferentialPrivacyServerSideFixedClipping | DifferentialPrivacyClientSideFixedClipping


def wrap(averaging: Strategy, settings: PrivacySettings, clients: int) -> Adaptive | Fixed:
    """Put Flower's wrapper of the configured mode around a strategy that averages ``clients`` updates in a round.

    Raises
    ------
    ValueError
        If the noise cannot be reached (adaptive modes: it must be below twice the noise of the count).
    """
    noise, norm = settings.noise_multiplier, settings.clipping_norm
    if settings.mode == "server-fixed":
        return DifferentialPrivacyServerSideFixedClipping(averaging, noise, norm, clients)
    if settings.mode == "client-fixed":
        return DifferentialPrivacyClientSideFixedClipping(averaging, noise, norm, clients)
    kind = ServerSideAdaptive if settings.mode == "server-adaptive" else ClientSideAdaptive
    count_stddev = settings.count_stddev or clients / 20  # Andrew et al.
    if noise >= 2 * count_stddev:
        raise ValueError(
            f"privacy.noise-multiplier = {noise:g}: must be below {2 * count_stddev:g}, twice privacy.count-stddev "
            f"(now {count_stddev:g}), because the noisy count spends part of the budget; raise privacy.count-stddev"
        )
    return kind(averaging, noise, clients, norm, settings.quantile, settings.clipping_rate, count_stddev)


class Mechanism(Strategy):
    """A wrapper whose noise is made for the replies that came, and whose clipping norm moves after the noise.

    ``clipping_norm`` (of the next round) and ``releases`` (noisy models so far) are the state of a run.

    Parameters
    ----------
    wrapper
        Flower's wrapper.
    seed_noise
        Called with the round before noise is drawn from NumPy's global generator.
    """

    def __init__(self, wrapper: Adaptive | Fixed, seed_noise: Callable[[int], None]) -> None:
        self.wrapper = wrapper
        self.clipping_norm = float(wrapper.clipping_norm)
        self.releases = 0
        self._seed_noise = seed_noise

    @property
    def clips_at_clients(self) -> bool:
        """Whether updates must come clipped."""
        return isinstance(self.wrapper, ClientSideAdaptive | DifferentialPrivacyClientSideFixedClipping)

    @property
    def needs_norm_bit(self) -> bool:
        """Whether every reply has to say if its update was clipped."""
        return isinstance(self.wrapper, ClientSideAdaptive)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the wrapped strategy choose the clients; the wrapper may tell them the clipping norm."""
        self.wrapper.clipping_norm = self.clipping_norm
        return self.wrapper.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the noisy mean of the clipped updates."""
        usable = list(replies)
        self.wrapper.num_sampled_clients = len(usable)  # the mean of fewer updates moves more with each of them
        self._seed_noise(server_round)
        arrays, metrics = self.wrapper.aggregate_train(server_round, usable)
        if arrays is not None:
            self.releases += 1
            self.clipping_norm = next_norm(self.wrapper)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the wrapped strategy choose the clients."""
        return self.wrapper.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Let the wrapped strategy combine the measures; they get no noise."""
        return self.wrapper.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log the wrapper's own summary."""
        self.wrapper.summary()

    def state_dict(self) -> dict[str, Any]:
        """Return the clipping norm of the next round and the number of releases; the mean itself remembers nothing."""
        return {"clipping_norm": self.clipping_norm, "releases": self.releases}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        self.clipping_norm, self.releases = state["clipping_norm"], state["releases"]


def next_norm(wrapper: Adaptive | Fixed) -> float:
    """Return the clipping norm after a round: C exp(-rate (share of updates below C - quantile)) (Andrew et al.)."""
    if not isinstance(wrapper, ServerSideAdaptive | ClientSideAdaptive):
        return float(wrapper.clipping_norm)
    below = 1 - wrapper.clipped_share
    return float(wrapper.clipping_norm * math.exp(-wrapper.clip_norm_lr * (below - wrapper.target_clipped_quantile)))


class PrivateStrategy(FlowerStrategyAdapter):
    """A robust strategy with the plain mean, inside Flower's privacy wrapper.

    Parameters
    ----------
    averaging
        The strategy that averages, every update with the same weight.
    settings
        The mode and its numbers.
    clients
        How many clients are asked in a round.
    seed_noise
        See :class:`Mechanism`.
    examples
        Example count of each client, if known; see :class:`UpdateStrategy`.
    """

    def __init__(
        self,
        averaging: RobustStrategy,
        settings: PrivacySettings,
        clients: int,
        seed_noise: Callable[[int], None],
        examples: Mapping[int, int] | None = None,
    ) -> None:
        self.mechanism = Mechanism(wrap(averaging, settings, clients), seed_noise)
        super().__init__(self.mechanism, averaging.min_replies, examples)
        self._averaging = averaging

    def keep(self, update: Update[Arrays]) -> ArrayRecord:
        """Return the arrays as a record of views.

        Raises
        ------
        ReplyError
            If Flower cannot clip the update, its client should have clipped it, or does not say whether it had to.
        """
        sent, at_client = self._validator.sent, self.mechanism.clips_at_clients
        norm = _norm({name: np.subtract(update.kept[name], before) for name, before in sent.items()})
        if not at_client and norm == 0:
            raise ReplyError("the model came back exactly as it was sent, and an update of norm 0 cannot be clipped")
        clip = self.mechanism.wrapper.clipping_norm
        if at_client and norm > 1.01 * clip + 1e-6 * _norm(sent):  # rounding grows with the model
            raise ReplyError(f"an update of norm {norm:.4g} from a client that has to clip at {clip:.4g}")
        if self.mechanism.needs_norm_bit and NORM_BIT not in update.metrics:  # Flower would end the run
            raise ReplyError(f"{NORM_BIT} is missing: whether the update had to be clipped")
        return super().keep(update)

    def aggregate_updates(
        self, server_round: int, updates: list[Update[ArrayRecord]], report: RoundReport
    ) -> tuple[Arrays | None, MetricRecord | None]:
        """Return the noisy mean of the updates."""
        result = super().aggregate_updates(server_round, updates, report)
        if result[0] is not None:  # Flower's wrapper has called it as any Flower app does
            report.weights = self._averaging.report.weights
            report.distances = self._averaging.report.distances
        return result


def _norm(arrays: Arrays) -> float:
    """Return the 2-norm over all arrays in Flower's arithmetic: what underflows there must be 0 here."""
    return float(np.sqrt(sum(np.linalg.norm(array.reshape(-1)) ** 2 for array in arrays.values())))
