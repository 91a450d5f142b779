"""Central differential privacy: the plain mean inside one of Flower's wrappers, behind the guard against bad replies.

Flower's wrappers divide by the norm of an update, so that a client that sends its model back unchanged would end the
run, and trust clients that should clip to have done so. Here the guard checks both.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from strategies.guard import Guard
from strategies.guarded import GuardedStrategy
from strategies.mechanism import Mechanism, wrap
from strategies.robust import RobustStrategy
from strategies.updates import ReplyError, Update, to_numpy
from tasks.settings import PrivacySettings
from tasks.wire import Arrays

NORM_BIT = "norm_bit"  # Flower's name for it


class PrivateStrategy(GuardedStrategy):
    """A robust strategy with the plain mean, inside Flower's privacy wrapper, behind the guard.

    Parameters
    ----------
    rule
        The strategy that averages, every update with the same weight.
    settings
        The mode and its numbers.
    clients
        How many clients are asked in a round.
    seed_noise
        See :class:`Mechanism`.
    examples
        Example count of each client, if known; see :class:`Guard`.
    """

    def __init__(
        self,
        rule: RobustStrategy,
        settings: PrivacySettings,
        clients: int,
        seed_noise: Callable[[int], None],
        examples: Mapping[int, int] | None = None,
    ) -> None:
        self.mechanism = Mechanism(wrap(rule, settings, clients), seed_noise)
        super().__init__(self.mechanism, rule.min_replies, examples)
        self._guard = NormGuard(self.mechanism, examples)
        self._rule = rule

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the noisy mean of the usable updates."""
        result = super().aggregate_train(server_round, replies)
        if result[0] is not None:
            self.report.weights, self.report.distances = self._rule.report.weights, self._rule.report.distances
        return result


class NormGuard(Guard):
    """Also checks the norm of an update: one that Flower cannot clip, or that its client should have clipped."""

    def __init__(self, mechanism: Mechanism, examples: Mapping[int, int] | None) -> None:
        super().__init__(examples)
        self._mechanism = mechanism

    def _read(self, reply: Message) -> Update[ArrayRecord]:
        update = super()._read(reply)
        if self._mechanism.needs_norm_bit and NORM_BIT not in update.metrics:  # Flower would end the run
            raise ReplyError(f"{NORM_BIT} is missing: whether the update had to be clipped")
        return update

    def _check(self, record: ArrayRecord) -> ArrayRecord:
        checked = super()._check(record)
        arrays = to_numpy(checked)
        norm = _norm({name: np.subtract(arrays[name], before) for name, before in self.reference.items()})
        at_client = self._mechanism.clips_at_clients
        if not at_client and norm == 0:
            raise ReplyError("the model came back exactly as it was sent, and an update of norm 0 cannot be clipped")
        clip = self._mechanism.wrapper.clipping_norm
        if at_client and norm > 1.01 * clip + 1e-6 * _norm(self.reference):  # rounding grows with the model
            raise ReplyError(f"an update of norm {norm:.4g} from a client that has to clip at {clip:.4g}")
        return checked


def _norm(arrays: Arrays) -> float:
    """Return the 2-norm over all arrays in Flower's arithmetic: what underflows there must be 0 here."""
    return float(np.sqrt(sum(np.linalg.norm(array.reshape(-1)) ** 2 for array in arrays.values())))
