"""A strategy of your own: FedAvg with every update clipped to the median norm of the round.

Any subclass of Flower's ``Strategy`` can be named by its import path. Run from the repository root:

    winnow run strategy.name=examples.norm_clipping:NormClipping strategy.args='factor = 1.0'
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg


class NormClipping(FedAvg):
    """Scale an update down to ``factor`` times the median norm, then average (Sun, Kairouz, Suresh, McMahan, 2019)."""

    def __init__(self, factor: float = 1.0, **fedavg: Any) -> None:
        super().__init__(**fedavg)
        if factor <= 0:
            raise ValueError(f"factor = {factor}: must be above 0")
        self.factor = factor

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the model that the clients start from."""
        self._start = {name: array.numpy() for name, array in arrays.items()}
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Clip every update, then let FedAvg average."""
        replies = list(replies)
        updates = [self._update(reply) for reply in replies]
        norms = [np.sqrt(sum(float((part.astype(float) ** 2).sum()) for part in update.values())) for update in updates]
        limit = self.factor * float(np.median(norms)) if norms else 0.0
        for reply, update, norm in zip(replies, updates, norms, strict=True):
            scale = min(1.0, limit / norm) if norm else 1.0
            clipped = {
                name: Array(np.asarray(self._start[name] + scale * part, part.dtype)) for name, part in update.items()
            }
            reply.content["arrays"] = ArrayRecord(clipped)
        return super().aggregate_train(server_round, replies)

    def _update(self, reply: Message) -> dict[str, Any]:
        (record,) = reply.content.array_records.values()
        return {name: array.numpy() - self._start[name] for name, array in record.items()}
