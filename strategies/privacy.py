"""Central differential privacy: the plain mean inside one of Flower's wrappers.

Flower's wrappers divide by the norm of an update, so that a client that sends its model back unchanged would end the
run, and trust clients that should clip to have done so. Here both are checked, and such a reply is set aside.
"""

from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import ArrayRecord, MetricRecord

from strategies.guarded import GuardedStrategy
from strategies.mechanism import Mechanism, wrap
from strategies.robust import RobustStrategy
from strategies.updates import ReplyError, RoundReport, Update
from tasks.settings import PrivacySettings
from tasks.wire import Arrays

NORM_BIT = "norm_bit"  # Flower's name for it


class PrivateStrategy(GuardedStrategy):
    """A robust strategy with the plain mean, inside Flower's privacy wrapper.

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
        Example count of each client, if known; see :class:`UpdateStrategy`.
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
        self._rule = rule

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
        if result[0] is not None:  # Flower's wrapper has called the rule as any Flower app does
            report.weights, report.distances = self._rule.report.weights, self._rule.report.distances
        return result


def _norm(arrays: Arrays) -> float:
    """Return the 2-norm over all arrays in Flower's arithmetic: what underflows there must be 0 here."""
    return float(np.sqrt(sum(np.linalg.norm(array.reshape(-1)) ** 2 for array in arrays.values())))
